"""Writes a CycloneDX 1.5 bill of materials to standard output: sbom.py COMMIT SECONDS

Without a serial number and with the time of the commit, so that the same commit gives the same bytes.
"""

import datetime
import json
import sys

import crates

commit, seconds = sys.argv[1], int(sys.argv[2])
version = crates.version()


def component(each, part_of_std):
    purl = f"pkg:cargo/{each['name']}@{each['version']}"
    result = {
        "type": "library",
        "bom-ref": purl + ("#std" if part_of_std else ""),
        "name": each["name"],
        "version": each["version"],
        "licenses": [{"expression": each["licence"]}],
        "purl": purl,
    }
    if each["name"] == "std":
        result["purl"] = f"pkg:generic/rust-std@{each['version']}"
    if each["checksum"]:
        result["hashes"] = [{"alg": "SHA-256", "content": each["checksum"]}]
    return result


components = [component(each, False) for each in crates.linked()]
components += [component(each, True) for each in crates.standard_library()]
components.append({
    "type": "library",
    "bom-ref": f"pkg:generic/musl@{crates.MUSL}",
    "name": "musl",
    "version": crates.MUSL,
    "licenses": [{"license": {"id": "MIT"}}],
    "purl": f"pkg:generic/musl@{crates.MUSL}",
})
own = f"pkg:cargo/kapo@{version}"
json.dump(
    {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "kapo",
                "version": version,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "purl": own,
                "properties": [{"name": "kapo:commit", "value": commit}],
            },
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [each["bom-ref"] for each in components]}],
    },
    sys.stdout,
    indent=1,
)
print()
