"""Pictures, denoisers and iterations that do not go together are refused in one line, before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer

REFUSED = {
    "data=photographs data.size=200 model=denoiser": "data.size=200: china has 427 x 128 pixels for test, expected at",
    "data=photographs data.pictures=[moon] model=denoiser": "data.pictures: no photograph 'moon'; choose some",
    "data=bsds500 data.root=. model=denoiser": "data.root=.: expected the folder of BSDS500, with images/train",
    "suite=plug_and_play": "suite.plug_and_play: is for pictures with noise (data=photographs or bsds500)",
    "data=photographs model=denoiser suite=plug_and_play suite.plug_and_play.length=99": "length=99: the kernel is "
    "larger than the image, expected at most suite.plug_and_play.size=88",
    "data=photographs model=dncnn suite=plug_and_play": "suite.plug_and_play: expected a denoiser that is proven "
    "averaged, since nothing else makes iterations converge",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_training_is_refused(words: str, robode: Callable[..., Answer], folder: Path) -> None:
    answer = robode("train", "--dry-run", *words.split())
    assert REFUSED[words] in answer.line
    assert answer.code == 2
    assert list(folder.iterdir()) == []
