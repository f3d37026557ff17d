"""Writes an OCI image archive: oci.py OUT VERSION COMMIT SECONDS ARCH=BINARY...

The image holds /kapo and nothing else. index.json names one index with an image for each architecture, as skopeo and
podman want it; manifest.json names the same layers for `docker load`. The layers are not compressed: compressors differ
between releases, and the same binaries shall give the same bytes.
"""

import datetime
import hashlib
import io
import json
import pathlib
import sys
import tarfile

out, version, commit, seconds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
binaries = dict(each.split("=", 1) for each in sys.argv[5:])
created = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
LABELS = {
    "org.opencontainers.image.title": "kapo",
    "org.opencontainers.image.description": "Wraps any command in a status socket with a JSON document, probes and metrics",
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.revision": commit,
    "org.opencontainers.image.created": created,
    "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
}
OCI = "application/vnd.oci.image."
files = {}


def member(name, content, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, seconds
    return info, io.BytesIO(content)


def blob(content, media_type, **more):
    if not isinstance(content, bytes):
        content = json.dumps(content, separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()
    files[f"blobs/sha256/{digest}"] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}


def layer(binary):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(*member("kapo", pathlib.Path(binary).read_bytes(), 0o755))
    return buffer.getvalue()


def path(descriptor):
    return "blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")


manifests, docker = [], []
for arch, binary in binaries.items():
    content = blob(layer(binary), OCI + "layer.v1.tar")
    config = blob(
        {
            "created": created,
            "architecture": arch,
            "os": "linux",
            "config": {
                "Entrypoint": ["/kapo"],
                "ExposedPorts": {"6666/tcp": {}},
                "Labels": LABELS,
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
            "history": [{"created": created, "created_by": "packaging/oci.py"}],
        },
        OCI + "config.v1+json",
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + "manifest.v1+json",
        "config": config,
        "layers": [content],
        "annotations": LABELS,
    }
    manifests.append(blob(manifest, OCI + "manifest.v1+json", platform={"architecture": arch, "os": "linux"}))
    # docker load takes one image for each tag. The plain one is that of the machine most of them are.
    tag = f"kapo:{version}" if arch == "amd64" else f"kapo:{version}-{arch}"
    docker.append({"Config": path(config), "RepoTags": [tag], "Layers": [path(content)]})

index = {
    "schemaVersion": 2,
    "mediaType": OCI + "index.v1+json",
    "manifests": manifests,
    "annotations": LABELS,
}
names = {"org.opencontainers.image.ref.name": version, "io.containerd.image.name": f"docker.io/library/kapo:{version}"}
top = {"schemaVersion": 2, "manifests": [blob(index, OCI + "index.v1+json", annotations=names)]}
files["index.json"] = json.dumps(top).encode()
files["manifest.json"] = json.dumps(docker).encode()
files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'

with tarfile.open(out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
    for name in sorted(files):
        tar.addfile(*member(name, files[name]))
