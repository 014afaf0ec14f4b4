"""Objects in images: detection, instance and semantic segmentation over the pyramid."""
