"""Refresh the browser files behind the GraphiQL page, so that it never loads from a CDN.

Each package comes through `npm pack`, from whichever registry npm is configured for, and
must match the sha512 pinned here. To upgrade: change a version, put the output of
`npm view NAME@VERSION dist.integrity` beside it, run `python3 scripts/vendor_graphiql.py`.
Running it again changes nothing.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).resolve().parent.parent / "gateway/static/graphiql/vendor"


class Package(NamedTuple):
    name: str
    version: str
    sha512: str
    files: dict[str, str]  # path in the package -> name in VENDOR


PACKAGES = [
    Package(
        "react",
        "18.3.1",
        "wS+hAgJShR0KhEvPJArfuPVN1+Hz1t0Y6n5jLrGQbkb4urgPE/0Rve+1kMB1v/oWgHgm4WIcV+i7F2pTVj+2iQ==",
        {"umd/react.production.min.js": "react.js", "LICENSE": "react.LICENSE"},
    ),
    Package(
        "react-dom",
        "18.3.1",
        "5m4nQKp+rZRb09LNH59GM4BxTh9251/ylbKIbpe7TpGxfJ+9kv6BLkLBXIjjspbgbnIBNqlI23tRnTWT0snUIw==",
        {"umd/react-dom.production.min.js": "react-dom.js", "LICENSE": "react-dom.LICENSE"},
    ),
    Package(
        "graphiql",
        "4.1.2",
        "rNlzQIAzm6i2KBXmVQWBgLvt0TloxFVB2d18bukvdsvjEuFDHsKx5IVOomL1W1o5WW+tE54+ioHb2AEKzO2cUg==",
        {
            "graphiql.min.js": "graphiql.js",
            "graphiql.min.css": "graphiql.css",
            "LICENSE": "graphiql.LICENSE",
        },
    ),
    # Ships no licence file: it lives in GraphiQL's repository, under graphiql.LICENSE.
    Package(
        "@graphiql/plugin-explorer",
        "4.0.6",
        "TppIi92YPER3v70nlF01KTQrq9AiYqkZicSd1hpU7aqGmbqw/pLwBNLUEcfENBoJtw574Qxjswb01+GaYK0Tzw==",
        {"dist/index.umd.js": "plugin-explorer.js", "dist/style.css": "plugin-explorer.css"},
    ),
    # The explorer plugin bundles this one: only its licence is needed.
    Package(
        "graphiql-explorer",
        "0.9.0",
        "fZC/wsuatqiQDO2otchxriFO0LaWIo/ovF/CQJ1yOudmY0P7pzDiP+l9CEHUiWbizk3e99x6DQG4XG1VxA+d6A==",
        {"LICENSE": "graphiql-explorer.LICENSE"},
    ),
    Package(
        "graphql-ws",
        "6.4.2",
        "wxhPhhOGJo8PbGDkBYVE76sZLDrS+GkyrR4bZECSLVbo0pZZNKs0HtBh2Ip/uaUuiVUxwO9ssI9R92buQfNSqQ==",
        {"umd/graphql-ws.min.js": "graphql-ws.js", "LICENSE.md": "graphql-ws.LICENSE"},
    ),
]


def tarball(package: Package, into: str) -> Path:
    npm = shutil.which("npm") or sys.exit("vendor_graphiql: npm is not installed")
    spec = f"{package.name}@{package.version}"
    packed = subprocess.run(  # noqa: S603 - a fixed command, no shell
        [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", into, spec],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    path = Path(into, packed.stdout.strip())
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != package.sha512:
        sys.exit(f"vendor_graphiql: {spec} has sha512-{digest}, not the one pinned")
    return path


def main() -> None:
    wanted: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for package in PACKAGES:
            with tarfile.open(tarball(package, scratch)) as archive:
                for source, name in package.files.items():
                    member = archive.extractfile(f"package/{source}")
                    assert member is not None, f"{package.name} holds no {source}"
                    wanted[name] = member.read()

    VENDOR.mkdir(parents=True, exist_ok=True)
    for path in VENDOR.iterdir():
        if path.name not in wanted:
            path.unlink()
    changed = 0
    for name, content in wanted.items():
        path = VENDOR / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            changed += 1
    print(f"{VENDOR}: {len(wanted)} files, {changed} changed")


if __name__ == "__main__":
    main()
