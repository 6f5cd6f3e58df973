"""Numbers and words as people read them."""

import pytest

from retract.report import wording


@pytest.mark.parametrize(
    ("ratio", "says"),
    [
        (0.2, "5 times slower than retraining"),
        (5.0, "5 times faster than retraining"),
        (0.95, "about as fast as retraining"),
        (1.5, "1.5 times faster than retraining"),
        (213.4, "213 times faster than retraining"),
        (0.0, "not compared with retraining"),
        (float("nan"), "not compared with retraining"),
    ],
)
def test_slower_is_never_a_part_of_faster(ratio, says):
    assert wording.pace(ratio) == says


def test_an_auc_stands_with_its_interval():
    assert wording.ranged(0.531, 0.4949, 0.567) == "0.53 (0.49–0.57)"


def test_an_audit_from_before_there_were_verdicts_is_not_judged_anew():
    assert wording.verdict({"verdict": "forgotten", "because": "Forgotten."}) == ("forgotten", "Forgotten.")
    assert wording.verdict({"attack": "score"})[0] == "cannot be told"
