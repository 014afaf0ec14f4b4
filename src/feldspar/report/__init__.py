"""Tables, figures and one-page HTML from JSON records; loads no torch."""
