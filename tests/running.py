"""`capsule-cli run` in the background, and what a client of its app does."""

import http.client
import time

from conftest import LAUNCHER, wait_for


class Running:
    """A `capsule-cli run` in the background, its output in files: nothing can block on a full pipe."""

    def __init__(self, capsule, directory, *args, **kw):
        self.out, self.err = directory / "stdout", directory / "stderr"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = capsule.start("run", "--launcher", LAUNCHER, *args, stdout=out, stderr=err, **kw)

    def stdout(self):
        return self.out.read_bytes()

    def stderr(self):
        return self.err.read_text(errors="replace")

    def says(self, text, seconds=30):
        """Waits for bytes on standard output."""
        wait_for(lambda: text in self.stdout() or self.process.poll() is not None, seconds, f"output of {text}")
        assert text in self.stdout(), self.stderr()

    def ends(self, status, seconds=30):
        got = self.process.wait(seconds)
        assert got == status, f"status {got}\n{self.stdout()[-2000:]}\n{self.stderr()}"
        return self

    def lines(self):
        """The app's output without the runtime's own lines."""
        return [x for x in self.stdout().decode(errors="replace").splitlines()
                if not x.startswith(("info ", "warn ", "debug ", "error "))]


def request(port, method, path, body=None, headers=None, seconds=20):
    """One request as soon as something answers; http.client's response with .body."""
    deadline = time.monotonic() + seconds
    while True:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            r.body = r.read()
            return r
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            c.close()
