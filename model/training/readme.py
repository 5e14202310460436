"""The model card's README: written by hand, but for the scores, which training puts between two marks."""

from typing import Any

from foveate.schema import BundleCard

__all__ = ["bare_card", "with_scores"]

_START, _END = "<!-- scores: written by `foveate train` -->", "<!-- end of scores -->"


def bare_card(card: BundleCard) -> str:
    """A model card that says no more than `card`, with a place for scores."""
    return f"{_front_matter(card)}\n# {card.name}\n\n{_START}\n{_END}\n"


def with_scores(text: str | None, card: BundleCard, scores: dict[str, Any]) -> str:
    """`text` with the table of `scores` (`evaluation.scores.score_bundle`) between its marks; None: a bare card."""
    if text is None or _START not in text or _END not in text:
        text = bare_card(card)
    before, rest = text.split(_START, 1)
    after = rest.split(_END, 1)[1]
    return f"{before}{_START}\n{_table(card, scores)}\n{_END}{after}"


def _front_matter(card: BundleCard) -> str:
    # Fields of the Hugging Face model card specification.
    fields = {
        "license": "other",
        "license_name": card.licence,
        "library_name": "foveate",
        "pipeline_tag": "image-segmentation",
    }
    return "".join(["---\n", *(f"{name}: {value}\n" for name, value in fields.items()), "---\n"])


def _table(card: BundleCard, scores: dict[str, Any]) -> str:
    names = [entry.name for entry in card.classes]
    lines = [
        "| ".join(["| policy ", "mean IoU ", *(f"IoU {name} " for name in names), "accuracy ", "patches by FoV |"]),
        "|---" * (len(names) + 4) + "|",
    ]
    for policy, score in scores.items():
        classes = " | ".join(_percent(score["iou"][name]) for name in names)
        patches = " / ".join(str(count) for count in score["patches_by_fov"])
        lines.append(
            f"| {policy} | **{_percent(score['miou'])}** | {classes} | {_percent(score['accuracy'])} | {patches} |"
        )
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    """Null is what is not defined, such as the IoU of a class that never occurs."""
    return "-" if share is None else f"{100 * share:.1f}"
