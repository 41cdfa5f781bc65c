#!/usr/bin/env python3
"""Writes the seeds in corpus/ that are text or a few bytes. The media seeds come from the tests' own clips: see `media` below (needs ffmpeg)."""
import pathlib
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent / "corpus"


def put(target, name, data):
    (HERE / target).mkdir(parents=True, exist_ok=True)
    (HERE / target / name).write_bytes(data if isinstance(data, bytes) else data.replace("\n", "\r\n").encode())


SDP = """v=0
o=- 1109162014219182 0 IN IP4 10.0.0.2
s=Media Presentation
c=IN IP4 0.0.0.0
t=0 0
a=control:rtsp://10.0.0.2/stream/
a=range:npt=0-
m=video 0 RTP/AVP 96
b=AS:5000
a=rtpmap:96 H264/90000
a=fmtp:96 profile-level-id=420029; packetization-mode=1; sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==
a=control:trackID=1
a=framerate:25.000
m=audio 0 RTP/AVP 8 104
a=rtpmap:104 mpeg4-generic/16000/1
a=fmtp:104 profile-level-id=15;streamtype=5;mode=AAC-hbr;config=1408;SizeLength=13;IndexLength=3;IndexDeltaLength=3
a=control:trackID=2
a=recvonly
"""

DIALOGUE = """RTSP/1.0 200 OK
CSeq: 1
Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER

RTSP/1.0 401 Unauthorized
CSeq: 2
WWW-Authenticate: Digest realm="cam", nonce="abc", stale=FALSE, algorithm=MD5, qop="auth"
WWW-Authenticate: Basic realm="cam"

RTSP/1.0 200 OK
CSeq: 3
Content-Base: rtsp://10.0.0.2/stream/
Content-Type: application/sdp
Content-Length: %d

%sRTSP/1.0 200 OK
CSeq: 4
Session: 66334873;timeout=60
Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=4e2b1a6f;mode="play"

RTSP/1.0 200 OK
CSeq: 5
Session: 66334873
RTP-Info: url=rtsp://10.0.0.2/stream/trackID=1;seq=1;rtptime=2
Range: npt=0.000-

"""


def text():
    requests = (
        "OPTIONS * RTSP/1.0\nCSeq: 1\n\n"
        "DESCRIBE rtsp://h/cam?start=2026-11-20T10:00:00Z RTSP/1.0\nCSeq: 2\nAccept: application/sdp\nRequire: onvif-replay\n\n"
        "SETUP rtsp://h/cam/track1?start=x RTSP/1.0\nCSeq: 3\nTransport: RTP/AVP;unicast;client_port=5000-5001, RTP/AVP/TCP;interleaved=0-1\n\n"
        "PLAY rtsp://h/cam RTSP/1.0\nCSeq: 4\nSession: 12345678\nRange: npt=1:02:03.5-\nScale: -2.5\nSpeed: 1.0\n\n"
        "GET_PARAMETER rtsp://h/cam RTSP/1.0\nCSeq: 5\nSession: 12345678\nContent-Type: text/parameters\nContent-Length: 6\n\nping\n")
    put("rtsp_message", "requests", b"\x10" + requests.replace("\n", "\r\n").encode())
    put("rtsp_message", "line-feeds-and-data", b"\x01" + requests.encode() + b"$\x00\x00\x0c\x80\x60\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02")
    body = SDP.replace("\n", "\r\n")
    dialogue = DIALOGUE.replace("\n", "\r\n") % (len(body), body)
    rtp = b"$\x00\x00\x11\x80\xe0\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x65\x88\x84\x00\x10"
    put("rtsp_message", "responses", b"\x40" + dialogue.encode() + rtp)
    put("rtsp_client", "dialogue", b"\x07" + dialogue.encode() + rtp * 3)
    put("sdp", "hikvision-like", SDP)
    put("sdp", "bare", "v=0\nm=video 0 RTP/AVP 26\na=control:*\n")
    for i, line in enumerate([
            "RTP/AVP/TCP;unicast;interleaved=0-1;mode=\"play\", RTP/AVP;multicast;destination=239.0.0.1;ttl=16",
            "npt=0.000-12.5", "npt=now-", "clock=20261120T100000.123Z-20261120T110000Z", "npt=30-26;time=19970123T143720Z",
            "url=rtsp://h/cam/track1?start=a,b;seq=65535;rtptime=4294967295,url=\"trackID=2\";seq=0",
            "12345678;timeout=60", "-32.5", "intra/4000"]):
        put("rtsp_headers", f"{i}", line.encode())
    for i, line in enumerate(["rtsp://user:p%40ss@[::1]:8554/a/b?c=d", "rtsp://admin:a@b#c@10.0.0.2/Streaming/Channels/101",
                              "rtsp://h/cam?start=2026-11-20T10:00:00%2B08:00/track1", "rtsp://h:554/../../etc/passwd"]):
        put("rtsp_url", f"{i}", line.encode())
    put("auth", "digest", b'Digest realm="a \\"b\\"", nonce="n", algorithm=SHA-256, qop="auth,auth-int", opaque=x, stale=true, Basic realm=c')
    put("auth", "answer", b'Digest username="u", realm="r", nonce="n", uri="/x", response="00112233445566778899aabbccddeeff", nc=00000001, cnonce="c", qop=auth')
    put("rtp_packet", "plain", bytes.fromhex("80e00001000000010000000268656c6c6f"))
    put("rtp_packet", "csrc-extension-padding", bytes.fromhex("b260000100000001000000020000000300000004abac0001112233440268656c6c6f000003"))
    put("rtcp", "sr-sdes-bye", bytes.fromhex(
        "81c8000c11223344e000000080000000000000010000001000002000000000010100000000000001000000a00000000000000000"
        "81ca000311223344010361626300000081cb000111223344"))
    put("disposable", "h264_b", bytes.fromhex("00 0000000209f0 00000003019a22"))
    put("disposable", "h264_p", bytes.fromhex("00 00000003419a22"))
    put("disposable", "h265_b", bytes.fromhex("01 00000003460150 000000040001e080"))


def units(path, codec):
    """NAL units of a clip, as one list per picture is not needed: the packets below are single NAL units and two fragments."""
    out = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-c:v", "copy", "-f", codec, "-"], check=True, capture_output=True).stdout
    return [n.rstrip(b"\0") for n in out.split(b"\0\0\1")[1:]]


def packet(payload, marker=False, advance=False, lost=False):
    return bytes([marker | advance << 1 | lost << 2]) + struct.pack(">H", len(payload)) + payload


def media():
    with tempfile.TemporaryDirectory() as d:
        for codec, encoder in (("h264", ["libx264", "-x264-params", "keyint=2:slices=2"]), ("hevc", ["libx265", "-x265-params", "keyint=2:log-level=error"])):
            clip = pathlib.Path(d) / f"{codec}.mkv"
            subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=5:duration=1", "-c:v", *encoder, str(clip)], check=True)
            data = b"\0"
            for i, nal in enumerate(units(clip, codec)):
                if len(nal) > 200 and codec == "h264":
                    fu = bytes([nal[0] & 0xE0 | 28])
                    data += packet(fu + bytes([0x80 | nal[0] & 31]) + nal[1:100], advance=i % 2 == 0)
                    data += packet(fu + bytes([0x40 | nal[0] & 31]) + nal[100:], marker=True)
                elif len(nal) > 200:
                    fu = bytes([nal[0] & 0x81 | 49 << 1, nal[1]])
                    kind = nal[0] >> 1 & 63
                    data += packet(fu + bytes([0x80 | kind]) + nal[2:100], advance=i % 2 == 0)
                    data += packet(fu + bytes([0x40 | kind]) + nal[100:], marker=True)
                else:
                    data += packet(nal, advance=i % 3 == 0)
            name = {"h264": "h264", "hevc": "h265"}[codec]
            put(name, "clip", data)
            aggregated = b"".join(struct.pack(">H", len(n)) + n for n in units(clip, codec)[:3])
            head = bytes([24]) if codec == "h264" else bytes([48 << 1, 1])
            put(name, "aggregated", b"\0" + packet(head + aggregated, marker=True, advance=True))
            whole = clip.read_bytes()
            put("mkv_import", f"{codec}.mkv", whole[:16000])
    put("aac", "two-units", b"\0" + packet(struct.pack(">HHH", 32, 4 << 3, 5 << 3) + b"\x21\x10\x04\x60" + b"\x21\x10\x04\x60\x8c", marker=True, advance=True))
    put("latm", "mux", b"\1" + packet(b"\x04\x21\x10\x04\x60", marker=True, advance=True))
    jpeg = struct.pack(">IBBBB", 0, 1, 80, 8, 8) + bytes(range(1, 60))
    put("jpeg", "quality", b"\0" + packet(jpeg, marker=True, advance=True))
    put("jpeg", "tables-restart", b"\0" + packet(struct.pack(">IBBBBHH", 0, 65, 255, 8, 8, 4, 0xFFFF) + b"\0\0\0\x80" + bytes(range(1, 129)) + b"\x11\x22\xff\xd0\x33", marker=True, advance=True))
    put("av1", "temporal-unit", b"\0" + packet(b"\x18\x0b\x08\x00\x00\x00\x24\xcf\x7f\x0d\xbf\xff\x30\x08\x30\x10\x00\x80\x00", marker=True, advance=True))
    for i in range(5):
        put("sound", f"{i}", bytes([i]) + packet(bytes(range(40)), marker=True, advance=True) + packet(bytes(40), lost=True))


text()
if "text" not in sys.argv:
    media()
