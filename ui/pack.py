"""Compresses the pages in the folder that is named first into the folder that is named second. The beginning that all pages
have is compressed once: common.gz followed by page.gz is a gzip file, and so is common.gz followed by fleet.gz."""

import sys
import zlib

source, target = sys.argv[1:]


def text(name):
    with open(f"{source}/{name}", "rb") as file:
        return file.read()


def store(name, data):
    with open(f"{target}/{name}.gz", "wb") as file:
        file.write(data)


# No name, no time, the best compression, Unix.
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"
common = text("common")
deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
store("common", HEADER + deflate.compress(common) + deflate.flush(zlib.Z_SYNC_FLUSH))
for name in ["page", "fleet"]:
    rest, own = text(name), deflate.copy()
    whole = common + rest
    trailer = zlib.crc32(whole).to_bytes(4, "little") + len(whole).to_bytes(4, "little")
    store(name, own.compress(rest) + own.flush() + trailer)
