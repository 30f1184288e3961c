import subprocess
import sys


def test_it_is_usable_without_the_rest():
    """Importing `sendback.dsn` brings in nothing of the server."""
    code = "import sys, sendback.dsn; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    ours = {name for name in modules if name.startswith("sendback.")}
    assert {name.split(".")[1] for name in ours} == {"dsn", "errors", "mail"}
    assert not modules & {"sqlalchemy", "starlette", "uvicorn", "botocore", "asyncio", "typer"}
