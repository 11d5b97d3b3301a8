"""scripts/check_site.py: broken links and remote resources of a built site are found, and nothing else."""

from pathlib import Path

from check_site import broken, main


def site(folder: Path, body: str) -> Path:
    folder.joinpath("deep").mkdir()
    folder.joinpath("index.html").write_text(f"<html><body><h1 id='top'>x</h1>{body}</body></html>")
    folder.joinpath("deep", "page.html").write_text(
        "<a id='here'></a><a href='../index.html#top'>up</a><a href='#here'>"
    )
    folder.joinpath("a picture.png").write_bytes(b"")
    return folder


def test_a_whole_site_passes(tmp_path: Path) -> None:
    whole = "<a href='deep/page.html#here'>a</a><img src='a%20picture.png'><a href='https://example.org/'>b</a>"
    assert main(site(tmp_path, whole)) == 0


def test_everything_that_is_wrong_is_named(tmp_path: Path) -> None:
    wrong = {
        "<a href='gone.html'>": "index.html: gone.html: no such file in the site",
        "<a href='deep/page.html#gone'>": "index.html: deep/page.html#gone: no place is called gone",
        "<a href='../outside.html'>": "index.html: ../outside.html: no such file in the site",
        "<img src='gone.png'>": "index.html: gone.png: no such file in the site",
        "<script src='https://example.org/x.js'></script>":
            "index.html: https://example.org/x.js: is fetched from elsewhere",
    }  # fmt: skip
    assert list(broken(site(tmp_path, "".join(wrong)))) == list(wrong.values())
    assert main(tmp_path) == 1
