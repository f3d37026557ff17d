"""What may come into the program with its dependencies, asked of cargo alone: licences, sources, crates twice.

The part of deny.toml that needs no cargo-deny; it reads its lists from there. Advisories are left to cargo-deny.
"""

import json
import subprocess
import sys
import tomllib

with open("deny.toml", "rb") as f:
    rules = tomllib.load(f)
ALLOWED = set(rules["licenses"]["allow"])
BANNED = {each["crate"] for each in rules["bans"]["deny"]}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def allowed(expression):
    """SPDX as crates write it: `A OR B`, `A/B`, `A AND B`, brackets around alternatives."""
    parts = expression.replace("(", " ").replace(")", " ").replace(" / ", " OR ").replace("/", " OR ")
    return all(any(one.strip() in ALLOWED for one in part.split(" OR ")) for part in parts.split(" AND "))


words = ["cargo", "metadata", "--locked", "--format-version", "1"]
for target in rules["graph"]["targets"]:
    words += ["--filter-platform", target]
data = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
own = set(data["workspace_members"])
nodes = {node["id"]: node for node in data["resolve"]["nodes"]}

# Collect everything that the program links. Dependencies of tests do not count.
reached, todo = set(), list(own)
while todo:
    each = todo.pop()
    if each not in reached:
        reached.add(each)
        todo += [dep["pkg"] for dep in nodes[each]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]

failed, versions = [], {}
for package in data["packages"]:
    name = f"{package['name']} {package['version']}"
    if package["id"] not in reached:
        continue
    versions.setdefault(package["name"], []).append(package["version"])
    if not allowed(package["license"] or "none"):
        failed.append(f"{name}: licence {package['license']}")
    if package["id"] not in own and package["source"] != REGISTRY:
        failed.append(f"{name}: from {package['source']}")
    if package["name"] in BANNED:
        failed.append(f"{name}: was weighed and left out")
failed += [f"{name}: in {len(each)} versions: {', '.join(each)}" for name, each in versions.items() if len(each) > 1]
for each in failed:
    print(each, file=sys.stderr)
print(f"licences: {len(reached)} crates, {len(failed)} complaints")
sys.exit(1 if failed else 0)
