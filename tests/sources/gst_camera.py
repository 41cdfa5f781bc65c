#!/usr/bin/python3
"""A camera that is not corenvr's own code: GStreamer's RTSP server playing a Matroska file in real time.

Usage: gst_camera.py PORT MOUNT=FILE [MOUNT=FILE ...]

The payloaders follow the file's codecs. Everybody who connects to a mount gets the file from its beginning.
With GST_CAMERA_LOGIN=basic:USER:PASSWORD or digest:USER:PASSWORD in the environment it asks for that.
Prints "ready" when it listens.
"""
import os
import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PAY = {
    "h264": "h264parse config-interval=0 ! rtph264pay name=pay{n} pt={pt} config-interval=-1",
    "hevc": "h265parse config-interval=0 ! rtph265pay name=pay{n} pt={pt} config-interval=-1",
    "mjpeg": "jpegparse ! rtpjpegpay name=pay{n} pt=26",
    "aac": "aacparse ! rtpmp4gpay name=pay{n} pt={pt}",
    "pcm_alaw": "rtppcmapay name=pay{n} pt=8",
    "pcm_mulaw": "rtppcmupay name=pay{n} pt=0",
    "opus": "opusparse ! rtpopuspay name=pay{n} pt={pt}",
}


def codecs(path):
    out = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,codec_type", "-of", "csv=p=0", path],
        check=True, capture_output=True, text=True).stdout
    return [line.split(",") for line in out.split()]


def pipeline(path):
    parts = [f"filesrc location={path} ! matroskademux name=d"]
    for n, (codec, kind) in enumerate(codecs(path)):
        pay = PAY[codec].format(n=n, pt=96 + n)
        pad = "video_0" if kind == "video" else "audio_0"
        parts.append(f"d.{pad} ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=5000000000 ! {pay}")
    return "( " + " ".join(parts) + " )"


def require_login(server, login):
    """Returns the permissions that every mount needs then."""
    scheme, user, password = login.split(":", 2)
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if scheme == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", what, True)
    return permissions


def main():
    port, mounts = sys.argv[1], [m.split("=", 1) for m in sys.argv[2:]]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    login = os.environ.get("GST_CAMERA_LOGIN")
    permissions = require_login(server, login) if login else None
    for mount, path in mounts:
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(pipeline(path))
        factory.set_shared(False)
        if permissions:
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory("/" + mount, factory)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on port {port}")
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
