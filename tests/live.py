"""examples/hello in the sandbox, with the Capsule API and the Aux API published too: what a client or a page of the
documentation talks to. Publishing port 9000 is for tests; the API has no authentication."""

import http.client
import json
import shutil
import subprocess

from conftest import ROOT, Capsule, free_port, wait_for, write_manifest

APP, API, AUX = 8080, 9000, 9001


class Live:
    """`port` maps the ports of the manifest to those of this machine."""

    def __init__(self, directory, app_libraries):
        self.capsule = Capsule(directory / "home")
        subprocess.run([ROOT / "examples/hello/make-rootfs", directory], check=True)
        for lib in app_libraries:
            to = directory / "rootfs" / lib.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(lib, to)
        manifest = write_manifest(directory / "capsule.yaml", "dir:rootfs", api={"listen_port": API},
                                  ingress=[{"listen_port": p} for p in (APP, API, AUX)])
        self.eif = directory / "hello.eif"
        self.pcrs = self.capsule.build(manifest, self.eif)["Measurements"]
        self.root = self.capsule.home / "state/capsule/dev-ca/root.pem"
        self.port = {p: free_port() for p in (APP, API, AUX)}
        published = [x for inside, outside in self.port.items() for x in ("-p", f"127.0.0.1:{outside}:{inside}")]
        self.log = directory / "run.log"
        with open(self.log, "wb") as log:
            self.process = self.capsule.start("run", "--launcher", "sandbox", *published, self.eif, stdout=log, stderr=log)
        wait_for(self.up, 30, "the capsule")

    def up(self):
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        try:
            return all(self.ask("GET", path, inside=p).status == 200
                       for p, path in ((API, "/v1/health"), (AUX, "/v1/health"), (APP, "/cgi-bin/index.cgi")))
        except (OSError, http.client.HTTPException):
            return False

    def url(self, path, inside=API):
        return f"http://127.0.0.1:{self.port[inside]}{path}"

    def ask(self, method, path, body=None, inside=API):
        """http.client's response with .body; a dict is sent as JSON."""
        c = http.client.HTTPConnection("127.0.0.1", self.port[inside], timeout=20)
        try:
            c.request(method, path, json.dumps(body) if isinstance(body, dict) else body)
            r = c.getresponse()
            r.body = r.read()
            return r
        finally:
            c.close()

    def stop(self):
        self.capsule.stop_all()
