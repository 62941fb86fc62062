"""Pages that write and score: a model as one HTML file that needs no server, and a server's own."""

import base64
import contextlib
import gzip
import hashlib
import html
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from chargen_ort.artifact import Artifact
from chargen_ort.errors import OptionError
from chargen_ort.samplers import as_step

_MARK = b'<meta name="generator" content="chargen-ort web">'
_PEEK = 4096  # bytes in which the mark of a page stands


def page_bytes(artifact: Artifact, title: str) -> bytes:
    """The page of a model, the same for the same model and title every time.

    A content security policy in it forbids all requests; scripts and styles are allowed by their
    hashes. The code for the worker is packed, as it is most of the page.
    """
    code = _read("chargen.js") + _read("page/worker.js")
    about = "Everything runs in this page, with no server and no network. Made with chargen."
    chooser = (
        '<label class="file">Open another model<input id="file" type="file" accept=".onnx"></label>'
    )
    holes = {"title": html.escape(title), "served": "", "chooser": chooser, "footer": about}
    return _page(code, holes, base64.b64encode(as_step(artifact).data).decode())


def served_page() -> bytes:
    """The page of a server, which asks the server's routes for all that it shows.

    Its policy allows requests to the server that it came from, and no others.
    """
    about = "Everything runs on the server that this page came from. Made with chargen."
    chooser = '<label>Model<select id="models"></select></label>'
    holes = {"title": "chargen", "served": " data-served", "chooser": chooser, "footer": about}
    return _page(_read("page/remote.js"), holes, requests="connect-src 'self'; ")


def _page(code: str, holes: Mapping[str, str], model: str = "", requests: str = "") -> bytes:
    # one classic script, which has neither: not every browser takes a module from a page on disk
    code = re.sub(r"^(?:export|import) \{.*;$", "", code, flags=re.MULTILINE)
    script, style = _read("page/page.js"), _read("page/page.css")
    parts = {
        **holes,
        "policy": (
            f"default-src 'none'; {requests}script-src {_hash(script)} "
            f"'wasm-unsafe-eval' blob:; worker-src blob:; style-src {_hash(style)}; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        "code": base64.b64encode(gzip.compress(code.encode(), 9, mtime=0)).decode(),
        "model": model,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: parts[hole[1]], _read("page/page.html")).encode()


def write_page(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a page so that at every moment the old file is there or the new one, whole.

    Args:
        path: of the file; its folder exists.
        data: as `page_bytes` gives it.
        overwrite: whether another file than a page may be replaced.

    Raises:
        OptionError: there is something that is no page, or the file cannot be written.
    """
    try:
        _refuse_foreign(path, overwrite)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}; name another file") from None


def _refuse_foreign(path: Path, overwrite: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OptionError(f"{path} is not a regular file; name another one")
    if overwrite:
        return
    with open(path, "rb") as file:
        if _MARK not in file.read(_PEEK):
            raise OptionError(
                f"{path} is there and is not a page of chargen-ort web; name another file, or add "
                "--overwrite"
            )


def _read(name: str) -> str:
    return (_folder() / name).read_text("utf-8")


def _folder() -> Path:
    """What pages are made of: in a wheel beside this module, in the repository one folder up."""
    here = Path(__file__)
    installed = here.with_name("web")
    return installed if installed.is_dir() else here.parent.with_name("web")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
