"""pjdfstest and fsx (tools/peers installs them) in an enclave, on its host mount. test_hostfs_posix.py has all of both on this
machine's own FUSE; here it is a part, or with CAPSULE_SUITES=whole all."""

import os
import re

import pytest

from conftest import LAUNCHER, USER_CACHE
from mount_apps import App
from mounting import needs_loop, own_mounts  # pylint: disable=unused-import

pytestmark = [pytest.mark.usefixtures("own_mounts"), needs_loop,
              pytest.mark.skipif(LAUNCHER == "sandbox" and not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")]
PROGRAMS = USER_CACHE / "peers/bin"
ALL = os.environ.get("CAPSULE_SUITES") == "whole"
WHOLE = ALL or LAUNCHER == "sandbox"

# In a directory with a path that is not too short: the suite makes longer ones by whole names.
SUITE = """
import os, subprocess
with open("/tmp/toml", "w") as f:
    f.write('''
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utimensat = {{}}
utime_now = {{}}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
''')
os.mkdir("/mnt/data/in-a-directory")
os.chdir("/mnt/data/in-a-directory")
os.chmod(".", 0o777)
subprocess.run(["/bin/pjdfstest", "-c", "/tmp/toml", "-p", os.getcwd(), *{patterns}], stderr=subprocess.STDOUT)
"""

FSX = """
import os, subprocess
for name, options in {runs}:
    r = subprocess.run(["/bin/fsx", *options, "/mnt/data/" + name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(name, r.returncode, "All operations completed A-OK!" in r.stdout or r.stdout[-2000:], flush=True)
"""


@pytest.fixture
def app():
    a = App("image", size_mb=256)
    yield a
    a.close()


def add_program(app, name):
    if not (PROGRAMS / name).exists():
        pytest.skip(f"needs {name} in {PROGRAMS} (tools/peers)")
    app.root.copy(PROGRAMS / name)
    (app.root.dir / "bin" / name).symlink_to(PROGRAMS / name)


def test_pjdfstest(app):
    add_program(app, "pjdfstest")
    app.root.programs("mount", "umount")
    patterns = [] if WHOLE else ["rename", "ftruncate"]
    lines = app.build(SUITE.format(patterns=patterns)).run(memory_mb=512, seconds=600)
    failed = [m[1] for x in lines if (m := re.match(r"(\S+) +FAILED$", x))]
    passed = [m[1] for x in lines if (m := re.match(r"(\S+) +ok$", x))]
    print(f"pjdfstest: {len(passed)} passed, {len(failed)} failed")
    assert len(passed) > (250 if WHOLE else 25), app.said()
    # Device nodes are refused (docs/host-mounts.md).
    assert [name for name in failed if not name.endswith(("::char", "::block"))] == [], lines


def test_fsx(app):
    add_program(app, "fsx")
    runs = [(f"seed-{seed}", ["-N", "5000" if ALL else "1000" if WHOLE else "300", "-S", str(seed)]) for seed in (3, 5)]
    assert app.build(FSX.format(runs=runs)).run(seconds=300) == [f"{name} 0 True" for name, _ in runs]
