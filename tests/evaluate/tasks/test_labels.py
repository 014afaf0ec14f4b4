"""Labels of pairs: figures by hand, likelihoods against the training loss, answers read back."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.bag_of_words import BagOfWords
from feldspar.evaluate.tasks.generate_until import generate_until
from feldspar.evaluate.tasks.labels import (
    evaluate_labels,
    label_figures,
    likeliest_labels,
    parse_labels,
)
from feldspar.evaluate.text_model import TextModel
from feldspar.model.decoder import Decoder
from feldspar.model.generation import generate
from feldspar.recipe.sections.phase_data import PairTemplate
from feldspar.tokens.sequences.example_reader import ExampleReader
from feldspar.tokens.sequences.pairs import (
    Pair,
    PairLayout,
    PairText,
    encode_pairs,
    pair_examples,
    target_text,
)

VALUES = ("yes", "no", "maybe")
TEMPLATE = TypeAdapter(PairTemplate).validate_python(
    {"source": "{q}", "target": "is {labels}.", "labels": {"field": "a", "values": VALUES}}
)
SEVERAL = TypeAdapter(PairTemplate).validate_python(
    {
        "source": "{q}",
        "target": "is {labels}.",
        "labels": {"field": "a", "values": VALUES, "several": True},
    }
)


@pytest.fixture
def prompted(make_model: Callable[..., TextModel]) -> TextModel:
    """A model with three soft vectors and rows of padding."""
    settings = make_model(
        vocab_size=264, max_sequence_length=48, positions="alibi"
    ).decoder.settings
    decoder = Decoder(settings, 3)
    torch.manual_seed(2)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TextModel(decoder, make_model().tokenizer, 257)


def layout_of(model: TextModel, **changes: object) -> PairLayout:
    plain = PairLayout(49, model.end_of_document_id, 264, 3)
    return replace(plain, **changes)


def some_pairs(model: TextModel, template: PairTemplate = TEMPLATE) -> list[Pair]:
    texts = [
        PairText(text, target_text(template, [label]), (label,), f"f:{n}")
        for n, (text, label) in enumerate(
            [("is it so?\n", "no"), ("well\n", "maybe"), ("a", "yes"), ("one two three\n", "no")]
        )
    ]
    return encode_pairs(texts, model.tokenizer)


def test_the_likeliest_label_has_the_least_training_loss(prompted: TextModel) -> None:
    pairs, layout = some_pairs(prompted), layout_of(prompted)
    right = 0
    for pair in pairs:
        losses = []
        for label in VALUES:
            (target,) = prompted.tokenizer.encode_documents([target_text(TEMPLATE, [label])])
            told = replace(pair, target=target.astype("int64"))
            examples = pair_examples([told], layout)
            reader = ExampleReader(examples, layout, seed=0, phase="x", on_target=True)
            batch = reader.read(0, 1)
            labels = torch.from_numpy(batch.tokens[:, 1:])
            assert batch.label_mask is not None and batch.document_ids is not None
            assert batch.label_mask.sum() == len(target) + 1
            loss, _ = prompted.decoder.loss(
                torch.from_numpy(batch.tokens[:, :-1]),
                labels.masked_fill(~torch.from_numpy(batch.label_mask), -100),
                torch.from_numpy(batch.document_ids),
                257,
            )
            losses.append(float(loss.detach()))
        right += VALUES[losses.index(min(losses))] == pair.labels[0]
    score = evaluate_labels(prompted, pairs, layout, TEMPLATE)
    assert score.by_likelihood is not None and score.by_likelihood.accuracy == right / len(pairs)
    assert score.parse_failures == 1.0  # random weights write no labels
    assert score.by_generation.accuracy == score.by_generation.micro_f1 == 0.0


def test_the_end_of_a_target_counts(prompted: TextModel) -> None:
    values = tuple("abcdefgh")  # equally long: the end decides now and then
    template = TypeAdapter(PairTemplate).validate_python(
        {"source": "{q}", "target": "{labels}", "labels": {"field": "a", "values": values}}
    )
    layout = layout_of(prompted)
    texts = [PairText(f"{n * n}\n", "a", ("a",), "") for n in range(24)]
    pairs = encode_pairs(texts, prompted.tokenizer)
    targets = [ids.tolist() for ids in prompted.tokenizer.encode_documents(values)]
    with_end, without = [], []
    for pair in pairs:
        context = layout.context(pair, 1).tolist()
        scores = [token_scores(prompted, context, target) for target in targets]
        whole, begun = [sum(each) for each in scores], [each[0] for each in scores]
        with_end.append((values[whole.index(max(whole))],))
        without.append((values[begun.index(max(begun))],))
    assert likeliest_labels(prompted, pairs, layout, template) == with_end
    assert with_end != without


def token_scores(model: TextModel, context: list[int], target: list[int]) -> list[float]:
    """The log-likelihood of each token of a target, its end the last."""
    wanted = [*target, model.end_of_document_id]
    with torch.no_grad():
        hidden = model.decoder(torch.tensor([context + wanted[:-1]]))
        logits = model.decoder.logits(hidden)[0, len(context) - 1 :, :257]
    logs = logits.double().log_softmax(-1)
    return [float(logs[place, token]) for place, token in enumerate(wanted)]


def test_generation_reads_the_vectors_with_a_cache_as_without(prompted: TextModel) -> None:
    for pair in some_pairs(prompted):
        context = layout_of(prompted).context(pair, 8)
        cached = generate_until(prompted, context.tolist(), (), 8)
        plain = generate(
            prompted.decoder,
            torch.from_numpy(context)[None],
            8,
            stop_ids=[257 - 1],
            n_real_vocab=257,
            use_cache=False,
        )[0, len(context) :].tolist()
        end = plain.index(256) if 256 in plain else len(plain)
        assert cached == prompted.tokenizer.decode(plain[:end])


def test_several_labels_are_generated_only(prompted: TextModel) -> None:
    pairs = some_pairs(prompted, SEVERAL)
    score = evaluate_labels(prompted, pairs, layout_of(prompted), SEVERAL)
    assert score.by_likelihood is None and score.as_dict()["by_likelihood"] is None
    with pytest.raises(UserError, match="do not fit in 8 tokens"):
        evaluate_labels(prompted, pairs, layout_of(prompted, longest=9), SEVERAL)


@pytest.mark.parametrize(
    ("template", "text", "labels"),
    [
        (TEMPLATE, "is no.", ("no",)),
        (TEMPLATE, "is no", None),
        (TEMPLATE, "is .", None),
        (TEMPLATE, "is", None),
        (TEMPLATE, "is no, yes.", None),
        (TEMPLATE, "is no. no.", None),
        (SEVERAL, "is maybe, yes.", ("yes", "maybe")),
        (SEVERAL, "is .", ()),
        (SEVERAL, "is yes, yes.", None),
        (SEVERAL, "is yes, perhaps.", None),
    ],
)
def test_answers_are_read_back(
    template: PairTemplate, text: str, labels: tuple[str, ...] | None
) -> None:
    assert parse_labels(text, template) == labels


@given(st.sets(st.sampled_from(VALUES)))
def test_what_a_target_says_is_what_it_was_made_of(labels: set[str]) -> None:
    ordered = tuple(label for label in VALUES if label in labels)
    assert parse_labels(target_text(SEVERAL, ordered), SEVERAL) == ordered


def naive_f1(true: Sequence[bool], found: Sequence[bool]) -> float:
    hits = sum(a and b for a, b in zip(true, found, strict=True))
    if not hits:
        return 0.0
    precision, recall = hits / sum(found), hits / sum(true)
    return 2 * precision * recall / (precision + recall)


SETS = st.sets(st.sampled_from(VALUES)).map(lambda labels: tuple(sorted(labels)))


@given(st.lists(st.tuples(SETS, st.none() | SETS), min_size=1, max_size=20))
def test_figures_against_their_definitions(
    examples: list[tuple[tuple[str, ...], tuple[str, ...] | None]],
) -> None:
    true, found = [a for a, _ in examples], [b for _, b in examples]
    figures = label_figures(true, found, VALUES)
    assert figures.accuracy == pytest.approx(sum(a == b for a, b in examples) / len(examples))
    flat = [[(v in a, v in (b or ())) for a, b in examples] for v in VALUES]
    every = [decision for column in flat for decision in column]
    assert figures.micro_f1 == pytest.approx(naive_f1(*zip(*every, strict=True)))
    used = [column for column in flat if any(a or b for a, b in column)]
    scores = [naive_f1(*zip(*column, strict=True)) for column in used]
    assert figures.macro_f1 == pytest.approx(sum(scores) / len(scores) if scores else 0.0)


def test_one_label_each_and_no_failures_make_micro_f1_the_accuracy() -> None:
    true = [("yes",), ("no",), ("no",), ("maybe",)]
    found = [("yes",), ("yes",), ("no",), ("no",)]
    figures = label_figures(true, found, VALUES)
    assert figures.accuracy == figures.micro_f1 == 0.5
    assert figures.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_a_bag_of_words_by_hand() -> None:
    words = BagOfWords(["Heart beats", "heart stops", "a lung"], ["cardiac", "cardiac", "chest"])
    assert words.majority == "cardiac"
    # Vocabulary of 5 words: P(lung | cardiac) = 1/9, P(lung | chest) = 2/7; priors 2/3 and 1/3.
    assert words.label("the LUNG") == "chest" and words.label("heart, lung") == "cardiac"
    assert words.label("unseen") == "cardiac"


WORDS = st.lists(st.sampled_from(["heart", "lung", "a", "stops", "rare"]), min_size=1).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.sampled_from(VALUES)), min_size=1, max_size=12), WORDS)
def test_the_bag_of_words_is_that_of_scikit_learn(
    training: list[tuple[str, str]], text: str
) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    texts, labels = zip(*training, strict=True)
    counts = CountVectorizer(token_pattern=r"\w+").fit(texts)
    bayes = MultinomialNB(alpha=1).fit(counts.transform(texts), labels)
    scores = dict(
        zip(bayes.classes_, bayes.predict_joint_log_proba(counts.transform([text]))[0], strict=True)
    )
    label = BagOfWords(texts, labels).label(text)
    assert scores[label] == pytest.approx(max(scores.values()))
