#!/bin/sh
# s3fs 2026.9.0. The number of an error does not tell a store that asks for fewer requests from a file that was written
# anew while it was read: both are EBUSY. What asks again after EBUSY, asks for the old content of a file for ever; the
# class tells them apart, `FileExpired` for the second one.
#
# Seen:
#   asked for fewer requests: OSError EBUSY
#   file written anew: FileExpired EBUSY
#   the same handle, asked again: FileExpired EBUSY
#   opened again: 6000000 bytes
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q s3fs==2026.9.0 "moto[server]==5.2.5"
cat > "$folder/read.py" <<'PYTHON'
import errno
import logging

from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

logging.getLogger("werkzeug").setLevel(logging.ERROR)
slow = translate_boto_error(ClientError({"Error": {"Code": "SlowDown", "Message": "Please reduce"}}, "GetObject"))
print(f"asked for fewer requests: {type(slow).__name__} {errno.errorcode[slow.errno]}")

server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
host, port = server.get_host_and_port()
files = S3FileSystem(key="k", secret="s", endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
files.mkdir("bucket")
files.pipe("bucket/samples", b"a" * 6_000_000)
with files.open("bucket/samples", "rb", block_size=65536, cache_type="none") as opened:
    opened.read(10)
    files.pipe("bucket/samples", b"b" * 6_000_000)
    for what in ("file written anew", "the same handle, asked again"):
        opened.seek(1_000_000)
        try:
            opened.read(10)
        except OSError as error:
            print(f"{what}: {type(error).__name__} {errno.errorcode[error.errno]}")
        else:
            print(f"{what}: read")
with files.open("bucket/samples", "rb") as opened:
    print(f"opened again: {len(opened.read())} bytes")
server.stop()
PYTHON
"$folder/venv/bin/python" "$folder/read.py" 2> "$folder/log" > "$folder/told" || {
  tail -5 "$folder/log"
  exit 1
}
grep -v MotoServer "$folder/told" > "$folder/said"
cat "$folder/said"
sed -n 's/^#   //p' "$0" > "$folder/expected"
diff "$folder/expected" "$folder/said"
