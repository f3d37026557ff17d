"""Writes the licences of everything that is linked into the program to standard output, each text once."""

import sys

import crates

NAMES = ("licen", "copying", "copyright", "notice", "mit", "apache-2.0", "unlicense")


def texts(folder):
    for each in sorted(folder.iterdir()):
        if each.is_file() and each.name.lower().startswith(NAMES):
            yield each.read_text()


users, failed = {}, []
print("kapo is one static program. It is linked from:\n")
parts = [*crates.linked(), *crates.standard_library()]
for each in parts:
    name = f"{each['name']} {each['version']}"
    print(f"  {name}: {each['licence']}")
    # std's folder holds the licences of the compiler, too.
    found = list(texts(each["folder"]))
    if each["name"] == "std":
        found = [(each["folder"] / file).read_text() for file in ("MIT.txt", "Apache-2.0.txt")]
    if not found:
        failed.append(name)
    for text in found:
        # A user list for each text; ends of lines and indentation do not make another licence.
        users.setdefault(" ".join(text.split()), (text, []))[1].append(name)
print(f"  musl {crates.MUSL}: MIT, parts BSD-2-Clause and others")
users["musl"] = ((crates.ROOT / "packaging/musl-copyright.txt").read_text(), [f"musl {crates.MUSL}"])

for text, names in users.values():
    print("\n" + "-" * 80 + "\n" + ", ".join(sorted(set(names))) + ":\n")
    print("\n".join(line.rstrip() for line in text.strip("\n").splitlines()))
if failed:
    print(f"licences: no licence text in {', '.join(failed)}", file=sys.stderr)
    sys.exit(1)
