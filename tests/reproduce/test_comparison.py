"""Tables of rows against the first one."""

import csv
import json

import pytest

from ude.reproduce import t1
from ude.reproduce.comparison import Column, Comparison, Ratio, difference, faster, relative
from ude.reproduce.training import Variant

VANILLA, OTHER = Variant(key="vanilla", title="Vanilla"), Variant(key="other", title="Other")
MACHINE = {"ude": "0", "commit": None, "torch": "2", "processor": "p"}


def record(variant, seed, seconds, loss):
    epochs = [{"epoch": e, "test_nfe": 20.0 + e, "test_loss": loss / e} for e in (1, 2)]
    settings = {"variant": variant.key, "seed": seed}
    result = {"seconds": seconds, "loss": loss}
    return {"settings": settings, "machine": MACHINE, "epochs": epochs, "result": result}


def comparison(*ratios, records=None):
    usual = [
        record(VANILLA, 0, 8.0, 1.0),
        record(OTHER, 1, 10.0, 3.0),  # in any order
        record(OTHER, 0, 4.0, 1.5),
        record(VANILLA, 1, 30.0, 2.0),
    ]
    return Comparison(
        variants=(VANILLA, OTHER),
        records=usual if records is None else records,
        columns=(Column("loss", "loss, 1e-3", scale=1e3), Column("seconds", "s")),
        ratios=ratios,
        published={"other": {"seconds": "1.75 h"}},
        notes=["A note."],
    )


def test_gains_are_taken_within_a_seed():
    # Not the ratio of the means, 38 / 14.
    gain = Ratio("other", "training", "seconds", faster, published="2.01", at_least=2.5)
    table = comparison(gain)
    assert table.compared(gain) == [3.0, 2.0]
    assert "| Other" in table.table().splitlines()[-1]
    assert "2.5 +- 0.71 | >= 2.5 | met" in table.table().splitlines()[-1]
    assert comparison().compared(Ratio("other", "loss", "loss", relative)) == [1.5, 1.5]
    assert comparison().compared(Ratio("other", "loss", "loss", difference)) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [({}, None), ({"at_least": 2.51}, False), ({"at_most": 2.5}, True), ({"at_least": 2.0, "at_most": 2.4}, False)],
)
def test_the_mean_over_seeds_decides(bounds, passed):
    assert Ratio("other", "q", "seconds", faster, **bounds).passed([3.0, 2.0]) is passed


def test_figures_have_mean_and_deviation_above_the_published_ones():
    lines = comparison().table().splitlines()
    assert lines[0].startswith("| mean +- deviation over seeds | loss, 1e-3")
    assert "1500 +- 7.1e+02 | 19 +- 16" in lines[2]
    assert "2250 +- 1.1e+03 | 7 +- 4.2" in lines[3]
    assert lines[4].startswith("| - published")
    assert lines[4].rstrip(" |").endswith("1.75 h")
    alone = comparison(records=[record(VANILLA, 0, 8.0, 1.0), record(OTHER, 0, 4.0, 1.5)]).table()
    assert "+-" not in alone


def test_everything_is_written_as_numbers_too(tmp_path):
    gain = Ratio("other", "training", "seconds", faster, published="2.01", at_least=2.6)
    comparison(gain).save(tmp_path, "Title")
    assert "A note." in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "table.json").read_text())["gains"][0]["ours"] == [3.0, 2.0]
    assert json.loads((tmp_path / "table.json").read_text())["gains"][0]["passed"] is False
    with (tmp_path / "runs.csv").open() as file:
        assert [(r["variant"], r["seed"], r["loss"]) for r in csv.DictReader(file)][1] == ("other", "1", "3.0")
    with (tmp_path / "epochs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    assert (tmp_path / "nfe.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_shows_means_over_seeds():
    axes = comparison().figure().axes
    assert [line.get_label() for line in axes[0].lines] == ["Vanilla", "Other"]
    assert list(axes[1].lines[1].get_ydata()) == [2.25, 1.125]


def test_no_figure_is_printed_as_published_that_the_talk_does_not_have():
    assert set(t1.TALK) == {"vanilla", "taynode", "srnode"}
    assert not any(ratio.published for ratio in t1.RATIOS if ratio.variant in ("ernode", "steer"))
    assert not any("nfe" in key for row in t1.TALK.values() for key in row)
