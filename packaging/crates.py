"""What the program is linked from: crates of Cargo.lock, the standard library and its crates, musl."""

import json
import os
import pathlib
import re
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl")
# The crates of std that are compiled with the features of scripts/build.sh.
STD_CRATES = ("cfg-if", "hashbrown", "libc", "rustc-demangle")
MUSL = "1.2.5"


def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def spdx(expression):
    """Old crates write `MIT/Apache-2.0`."""
    return re.sub(r"\s*/\s*", " OR ", expression)


def checksums(lock):
    packages = tomllib.loads(pathlib.Path(lock).read_text())["package"]
    return {(each["name"], each["version"]): each.get("checksum") for each in packages}


def linked():
    """Yields a dict for each crate, sorted by name: name, version, licence, checksum, folder, description."""
    words = ["cargo", "metadata", "--locked", "--format-version", "1"]
    for target in TARGETS:
        words += ["--filter-platform", target]
    data = json.loads(output(*words))
    packages = {each["id"]: each for each in data["packages"]}
    nodes = {each["id"]: each for each in data["resolve"]["nodes"]}
    sums = checksums(ROOT / "Cargo.lock")
    macros = {key for key, each in packages.items() if any("proc-macro" in t["kind"] for t in each["targets"])}

    # Macros and build scripts run at compile time, and what only tests use is not in the program.
    reached, todo = set(), list(data["workspace_members"])
    while todo:
        each = todo.pop()
        if each in reached or each in macros:
            continue
        reached.add(each)
        todo += [dep["pkg"] for dep in nodes[each]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    for each in sorted((packages[key] for key in reached), key=lambda each: each["name"]):
        if each["id"] not in data["workspace_members"]:
            yield {
                "name": each["name"],
                "version": each["version"],
                "licence": spdx(each["license"]),
                "checksum": sums[(each["name"], each["version"])],
                "folder": pathlib.Path(each["manifest_path"]).parent,
            }


def standard_library():
    """The same for std itself and for its crates, which cargo has unpacked beside ours when it built std."""
    sysroot = pathlib.Path(output("rustc", "--print", "sysroot").strip())
    version = output("rustc", "--version").split()[1]
    yield {
        "name": "std",
        "version": version,
        "licence": "MIT OR Apache-2.0",
        "checksum": None,
        "folder": sysroot / "share/doc/rust/licenses",
    }
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    for (name, version), checksum in sorted(checksums(sysroot / "lib/rustlib/src/rust/library/Cargo.lock").items()):
        if name in STD_CRATES:
            folder = next(home.glob(f"registry/src/*/{name}-{version}"))
            licence = tomllib.loads((folder / "Cargo.toml").read_text())["package"]["license"]
            yield {"name": name, "version": version, "licence": spdx(licence), "checksum": checksum, "folder": folder}


def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
