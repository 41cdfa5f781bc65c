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
    event = b'{"time":"2026-11-20T10:00:00.000Z","kind":"alarm","source":"gb28181","text":"motion","detail":{"method":5}}'
    put("events", "two", event + b"\n" + event.replace(b'"kind"', b'"claimed_time":"2001-01-01T00:00:00.000Z","kind"') + b"\n")
    put("events", "torn", event + b"\n" + event[:40])
    put("disposable", "h264_b", bytes.fromhex("00 0000000209f0 00000003019a22"))
    put("disposable", "h264_p", bytes.fromhex("00 00000003419a22"))
    put("disposable", "h265_b", bytes.fromhex("01 00000003460150 000000040001e080"))


def amf(*values):
    """AMF0 of Python values; a dict is an object."""
    out = b""
    for v in values:
        if v is None:
            out += b"\x05"
        elif isinstance(v, bool):
            out += b"\x01" + bytes([v])
        elif isinstance(v, (int, float)):
            out += b"\0" + struct.pack(">d", v)
        elif isinstance(v, str):
            out += b"\x02" + struct.pack(">H", len(v)) + v.encode()
        elif isinstance(v, list):
            out += b"\x0a" + struct.pack(">I", len(v)) + amf(*v)
        else:
            out += b"\x03" + b"".join(struct.pack(">H", len(k)) + k.encode() + amf(x) for k, x in v.items()) + b"\0\0\x09"
    return out


def chunks(kind, body, time=0, stream=1, chunk_stream=4, size=128):
    """A message of RTMP in chunks, with the extended time stamp where it is needed."""
    extended = struct.pack(">I", time) if time >= 0xFFFFFF else b""
    out = bytes([chunk_stream]) + struct.pack(">I", min(time, 0xFFFFFF))[1:] + struct.pack(">I", len(body))[1:] + bytes([kind]) + struct.pack("<I", stream) + extended
    for i in range(0, max(len(body), 1), size):
        out += (bytes([0xC0 | chunk_stream]) + extended if i else b"") + body[i:i + size]
    return out


def rtmp():
    sps, pps = bytes.fromhex("6742c028da01e0089f97011000000300100000030320f1832a"), bytes.fromhex("68ce0fc8")
    vps_h, sps_h, pps_h = (bytes.fromhex(h) for h in (
        "40010c01ffff016000000300900000030000030078959409", "420101016000000300900000030000030078a003c0801107cb965654a4c2f0168080000003008000000c84", "4401c073c189"))
    avcc = b"\x01\x42\xc0\x28\xff\xe1" + struct.pack(">H", len(sps)) + sps + b"\x01" + struct.pack(">H", len(pps)) + pps
    hvcc = b"\x01" + sps_h[3:15] + bytes.fromhex("f000fcfdf8f800000f03") + b"".join(
        bytes([k, 0, 1]) + struct.pack(">H", len(n)) + n for k, n in ((32, vps_h), (33, sps_h), (34, pps_h)))
    nal = lambda *nals: b"".join(struct.pack(">I", len(n)) + n for n in nals)
    key, rest = nal(b"\x65\x88\x80\x11" * 60), nal(b"\x41\x9a\x02\x22", b"\x41\x26\x80\x44")
    tags = [
        (0, b"\x17\0\0\0\0" + avcc), (1, b"\xaf\0\x12\x10"), (0, b"\x17\x01\0\0\x50" + key), (1, b"\xaf\x01\x21\x10\x04\x60"), (0, b"\x27\x01\xff\xff\xd8" + rest)]
    enhanced = [
        (0, b"\x90hvc1" + hvcc), (0, b"\x91hvc1\0\0\x28" + nal(b"\x26\x01\xaf\x11")), (0, b"\xa3hvc1" + nal(b"\x02\x01\xd0\x22")), (1, b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"),
        (1, b"\x91Opus\x04xyz"), (0, b"\xa7\x02\x01\x02\x03\x03avc1" + rest), (0, b"\xa6\x13avc1\0\0\0\x08" + rest[:8] + b"\x01\0\0\0")]
    others = [
        (0, b"\x90av01\x81\0\0\0" + bytes.fromhex("0a0b0000002d4cffb3cdaf9004")), (0, b"\x91av01\x12\0\x32\x02\x10\0"), (1, b"\x72" + bytes(40)), (1, b"\x82" + bytes(40)), (1, b"\x2fmp3"),
        (0, b"\x1c\0\0\0\0" + hvcc), (0, b"\x1c\x01\0\0\0\0\0\0\x01" + sps_h), (0, b"\x57\0")]
    for name, list_ in (("legacy", tags), ("enhanced", enhanced), ("others", others)):
        put("flv", name, b"".join(bytes([20 << 1 | kind]) + struct.pack(">H", len(body)) + body for kind, body in list_))
    connect = {"app": "live?user=u", "tcUrl": "rtmp://h/live", "fpad": False, "capabilities": 239, "fourCcList": ["avc1", "hvc1"]}
    for kind in (20, 17):
        command = lambda *values: chunks(kind, (b"\0" if kind == 17 else b"") + amf(*values), stream=0, chunk_stream=3, size=4096)
        begin = chunks(1, struct.pack(">I", 4096), stream=0, chunk_stream=2) + command("connect", 1, connect) + command("releaseStream", 2, None, "KEY-12345") + \
            command("FCPublish", 3, None, "KEY-12345") + command("createStream", 4, None) + command("publish", 5, None, "KEY-12345?a=b", "live")
        media = b"".join(chunks(8 if k else 9, body, 0xFFFFF0 + 9 * i, size=4096, chunk_stream=6 if k else 4) for i, (k, body) in enumerate(tags + enhanced))
        end = command("FCUnpublish", 6, None, "KEY-12345") + command("deleteStream", 7, None, 1)
        put("rtmp_server", f"publish-{kind}", b"\x07" + begin + chunks(18, amf("@setDataFrame", "onMetaData", {"width": 1920}), size=4096) + media + end)
    small = chunks(20, amf("connect", 1, {"app": "live"}), stream=0, chunk_stream=3) + chunks(20, amf("publish", 5, None, "KEY", "live"), chunk_stream=3)
    put("rtmp_server", "extended-in-small-chunks", b"\x01" + small + chunks(9, b"\x17\0\0\0\0" + avcc * 6, 0x01000000) + chunks(4, b"\0\x06\0\0\0\x01", stream=0, chunk_stream=2) +
        chunks(9, b"\x17\x01\0\0\0" + key, 0xFFFFFFF0) + b"\x84\0\0\x28" + b"\x17\x01\0\0\0" + b"\xc4")
    tag = lambda kind, time, body: bytes([kind]) + struct.pack(">I", len(body))[1:] + struct.pack(">I", time)[1:] + b"\0\0\0\0" + body + struct.pack(">I", len(body) + 11)
    put("rtmp_server", "aggregate", b"\x02" + small + chunks(5, struct.pack(">I", 100), stream=0, chunk_stream=2) + chunks(22, tag(9, 7, rest) + tag(8, 9, b"\xaf\x01\x21"), 5000) + chunks(2, struct.pack(">I", 4), stream=0, chunk_stream=2))
    put("rtmp_server", "play", b"\x03" + chunks(20, amf("connect", 1, {"app": "live"}), stream=0, chunk_stream=3) + chunks(20, amf("play", 2, None, "x"), chunk_stream=3))
    status = lambda level, code, **more: {"level": level, "code": code, "description": "words", **more}
    answer = lambda *values: chunks(20, amf(*values), stream=0, chunk_stream=3, size=4096)
    large = chunks(1, struct.pack(">I", 4096), stream=0, chunk_stream=2)
    playing = large + answer("_result", 1, {"fmsVer": "x"}, status("status", "NetConnection.Connect.Success")) + answer("_result", 2, None, 1) + chunks(4, b"\0\0\0\0\0\x01", stream=0, chunk_stream=2) + \
        answer("onStatus", 0, None, status("status", "NetStream.Play.Start"))
    put("rtmp_client", "play", b"\x05" + playing + b"".join(chunks(8 if k else 9, body, 40 * i, size=4096) for i, (k, body) in enumerate(tags)) + chunks(4, b"\0\x01\0\0\0\x01", stream=0, chunk_stream=2))
    put("rtmp_client", "not-found", b"\x01" + playing + answer("onStatus", 0, None, status("error", "NetStream.Play.StreamNotFound")))
    put("rtmp_client", "redirect", b"\x09" + large + answer("_error", 1, None, status("error", "NetConnection.Connect.Rejected", ex={"code": 302, "redirect": "rtmp://other:1936/live"})))
    put("amf", "command", amf("connect", 1, connect, None, [1, "two", {"three": None}]))
    put("amf", "others", b"\x08\0\0\0\x03\0\x01a\x05\0\0\x09" + b"\x0b" + bytes(10) + b"\x0c\0\0\0\x01x" + b"\x10\0\x01T\0\x01a\x01\x01\0\0\x09" + b"\x0f\0\0\0\x01x\x06")
    for i, line in enumerate(["rtmp://user:p%40ss@[::1]:1936/live/cam?a=b", "rtmp://h/bcs/channel0_main.bcs?channel=0&user=admin&password=p", "rtmp://h/a/b/c/mp4:d", "cam-KEY_1.~x"]):
        put("rtmp_url", f"{i}", line.encode())


def gb28181():
    head = '<?xml version="1.0" encoding="GB2312"?>\n'
    device = "<SN>17</SN>\n<DeviceID>34020000001110000001</DeviceID>\n"
    item = ("<Item>\n<DeviceID>34020000001320000001</DeviceID>\n<Name>\u5927\u95e8 &amp; &#x5927; A&B</Name>\n<Manufacturer>Hikvision</Manufacturer>\n"
            "<CivilCode>340200</CivilCode>\n<Parental>0</Parental>\n<ParentID>34020000001110000001/34020000002160000001</ParentID>\n"
            "<Status>ON</Status>\n<Longitude>118.5</Longitude>\n<Info>\n<PTZType>1</PTZType>\n</Info>\n</Item>\n")
    catalog = f'<Response>\n<CmdType>Catalog</CmdType>\n{device}<SumNum>2</SumNum>\n<DeviceList Num="2">\n{item}{item}</DeviceList>\n</Response>\n'
    put("manscdp", "catalog-gb18030", (head + catalog).replace("\n", "\r\n").encode("gb18030"))
    put("manscdp", "catalog-gb18030-called-utf8", (head.replace("GB2312", "UTF-8") + catalog).encode("gb18030"))
    put("manscdp", "catalog-utf8-called-gb2312", (head + catalog).encode())
    put("manscdp", "catalog-notify", head + catalog.replace("Response>", "Notify>").replace("<Status>", "<Event>UPDATE</Event><Status>"))
    put("manscdp", "keepalive", f"{head}<Notify>\n<CmdType>Keepalive</CmdType>\n{device}<Status>OK</Status>\n<Info><DeviceID>1</DeviceID></Info></Notify>\n")
    put("manscdp", "attributes", '<Query CmdType="Catalog" SN="7" DeviceID="34020000001110000001"/>')
    put("manscdp", "alarm", f"<Notify><CmdType>Alarm</CmdType>{device}<AlarmPriority>4</AlarmPriority><AlarmMethod>5</AlarmMethod>"
        "<AlarmTime>2026-11-21T06:23:29.5+08:00</AlarmTime><Info><AlarmType>6</AlarmType><AlarmTypeParam><EventType>1</EventType></AlarmTypeParam></Info></Notify>")
    put("manscdp", "records", f"<Response><CmdType>RecordInfo</CmdType>{device}<Name>x</Name><SumNum>1</SumNum><RecordList Num='1'><Item><FilePath>a</FilePath>"
        "<StartTime>2026-11-21T06:00:00</StartTime><EndTime>2026-11-21 07:00:00Z</EndTime><Type>time</Type><FileSize>12</FileSize></Item></RecordList></Response>")
    for command, lines in [("RecordInfo", "<StartTime>2026-11-21T06:00:00</StartTime><EndTime>2026-11-21T07:00:00</EndTime><Type>all</Type>"),
                           ("Alarm", "<StartAlarmPriority>1</StartAlarmPriority><AlarmMethod>0</AlarmMethod>"), ("MobilePosition", "<Interval>5</Interval>")]:
        put("manscdp", f"query-{command}", f"<Query><CmdType>{command}</CmdType>{device}{lines}</Query>")
    for name, lines in [("ptz", "<PTZCmd>A50F01011F20F0E5</PTZCmd>"), ("reset", "<AlarmCmd>ResetAlarm</AlarmCmd><Info><AlarmMethod>2</AlarmMethod></Info>"),
                        ("keyframe", "<IFameCmd>Send</IFameCmd>")]:
        put("manscdp", f"control-{name}", f"<Control><CmdType>DeviceControl</CmdType>{device}{lines}</Control>")
    put("manscdp", "status", f"<Response><CmdType>DeviceStatus</CmdType>{device}<Result>OK</Result><Online>ONLINE</Online><Status>OK</Status>"
        '<DeviceTime>2026-11-21T06:23:29</DeviceTime><Alarmstatus Num="1"><Item><DeviceID>1</DeviceID><DutyStatus>ONDUTY</DutyStatus></Item></Alarmstatus></Response>')
    put("manscdp", "entity-bomb", '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><Notify><CmdType>&b;</CmdType></Notify>')
    put("manscdp", "entities", "<Notify><CmdType>&a;&lt;&#65;&#x110000;&</CmdType><![CDATA[x]]></Notify>")
    put("manscdp", "nesting", "<a>" * 15 + "<Item/>" + "</a>" * 15)
    put("manscdp", "too-deep", "<a>" * 300 + "</a>" * 300)
    offer = ("v=0\no=34020000001320000001 0 0 IN IP4 192.168.1.2\ns=%s\nu=34020000001320000001:0\nc=IN IP4 192.168.1.2\nt=%s\n"
             "m=video 30000 %sRTP/AVP 96 97 98 99\na=recvonly\na=rtpmap:96 PS/90000\na=rtpmap:98 H264/90000\na=rtpmap:97 MPEG4/90000\n"
             "a=rtpmap:99 H265/90000\n%sy=0200001234\nf=v/////a///\n")
    put("gb_sdp", "play-udp", offer % ("Play", "0 0", "", ""))
    put("gb_sdp", "download-tcp", offer % ("Download", "1763700000 1763703600", "TCP/", "a=setup:passive\na=connection:new\na=downloadspeed:4\na=streamnumber:1\n"))
    put("gb_sdp", "answer", "v=0\no=34020000001320000001 0 0 IN IP4 10.0.0.9\ns=Embedded Net DVR\nc=IN IP4 10.0.0.9\nt=0 0\nm=video 15060 TCP/RTP/AVP 96\n"
        "a=setup:active\na=sendonly\na=rtpmap:96 PS/90000\na=filesize:1048576\na=username:x\ny=0999999999\nf=v/2/4///a/1/8/1\n")
    put("gb_sdp", "private", "v=0\nm=video 1 RTP/AVP 96\na=rtpmap:96 DAHUA/90000\n")
    put("gb_sdp", "mansrtsp-play", "PLAY RTSP/1.0\nCSeq: 2\nScale: -2.0\nRange: npt=100.5-200\n\n")
    put("gb_sdp", "mansrtsp-pause", "PAUSE MANSRTSP/1.0\nCSeq: 3\nPauseTime: now\n\n")
    put("gb_sdp", "mansrtsp-answer", "RTSP/1.0 200 OK\nCSeq: 2\nRange: npt=100-\nRTP-Info: seq=981;rtptime=3450012\n\n")
    for i, line in enumerate(["gb28181://:p%40s@34020000001110000001/34020000001320000002?transport=udp&stream=sub", "gb28181://34020000001110000001/*", "0200001234",
                              "2026-11-21T06:23:29.135+08:00", "20261121T062329Z", "A50F01011F20F0E5"]):
        put("gb_texts", f"{i}", line.encode())


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
            # A muxer that is not ours: packs of 2048 bytes, PES packets that begin anywhere.
            stream = subprocess.run(["ffmpeg", "-v", "error", "-i", str(clip), "-c", "copy", "-f", "vob", "-"], check=True, capture_output=True).stdout
            put("ps", f"ffmpeg-{codec}", b"".join(packet(stream[at:at + 1400]) for at in range(0, len(stream), 1400)))
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


def time_field(prefix, t):
    return bytes([prefix << 4 | t >> 29 & 14 | 1, t >> 22 & 255, t >> 14 & 254 | 1, t >> 7 & 255, t << 1 & 254 | 1])


def pes(stream_id, body, pts=None, length=True):
    fields = b"" if pts is None else time_field(2, pts)
    content = bytes([0x8C, 0x80 if fields else 0, len(fields)]) + fields + body
    return b"\0\0\1" + bytes([stream_id]) + struct.pack(">H", len(content) if length else 0) + content


def program_stream(h265=False, told=0x1B, sound=0x90, length=True, stuffing=b"", map_too=True):
    """Four pictures with sound; each as the bytes of one RTP time stamp."""
    sets = [SETS_265, SETS_264][not h265]
    for i in range(4):
        pts = 0x1FFFFF000 + 3600 * i
        s = pts
        clock = 1 << 46 | (s >> 30 & 7) << 43 | 1 << 42 | (s >> 15 & 0x7FFF) << 27 | 1 << 26 | (s & 0x7FFF) << 11 | 1 << 10 | 1
        out = b"\0\0\1\xba" + clock.to_bytes(6, "big") + b"\x01\x5f\x93" + bytes([0xF8 | len(stuffing)]) + stuffing
        key = i % 2 == 0
        if key:
            out += bytes.fromhex("000001bb000c801efffee17fe0e0d8c0c020")
            if map_too:
                out += bytes.fromhex("000001bc0012e1ff00000008%02xe00000%02xc0000001020304" % (told, sound))
        slices = [b"\x26\1\xaf", b"\2\1\xd0"] if h265 else [b"\x65\x88\x84", b"\x41\x9a\x24"]
        nals = (sets if key else []) + [slices[not key] + bytes(range(1, 60)) + b"\x80"]
        stream = b"".join(b"\0\0\0\1" + n for n in nals)
        out += pes(0xE0, stream[:50], pts, length) + pes(0xE0, stream[50:], None, length)
        out += pes(0xC0, b"\xd5" * 40 if sound != 0x0F else bytes.fromhex("fff16040017ffc21100460") * 2, pts)
        yield out


SETS_264 = [bytes.fromhex(t) for t in ("6742c028da01e0089f97011000000300100000030320f1832a", "68ce0fc8")]
SETS_265 = [bytes.fromhex(t) for t in (
    "40010c01ffff016000000300900000030000030078959409",
    "420101016000000300900000030000030078a003c0801107cb965654a4c2f0168080000003008000000c84", "4401c073c189")]


def program_streams():
    kinds = {"plain": {}, "hevc-told-avc": {"h265": True}, "aac": {"sound": 0x0F}, "open": {"length": False}, "no-map": {"map_too": False},
             "stuffing": {"stuffing": b"\0\0\1\xe0\0\0\1"}, "svac": {"told": 0x80}}
    for name, kind in kinds.items():
        data, media, framed, sequence = b"", b"\x01", b"", 65534
        for i, picture in enumerate(program_stream(**kind)):
            parts = [picture[at:at + 90] for at in range(0, len(picture), 90)]
            for n, part in enumerate(parts):
                last = n + 1 == len(parts)
                data += packet(part, marker=last, advance=n == 0, lost=name == "plain" and i == 2 and n == 1)
                rtp = struct.pack(">BBHII", 0x80, 96 | last << 7, sequence & 0xFFFF, i * 3600, 7) + part
                sequence += 1
                media += struct.pack(">H", len(rtp)) + rtp
                framed += (b"$\0" if name == "open" else b"") + struct.pack(">H", len(rtp)) + rtp
                if name == "aac" and n == 1:
                    framed += bytes.fromhex("fe011377000001")
        put("ps", name, data)
        put("gb_media", name, media)
        put("tcp_framing", name, b"\x30" + framed)
    raw = b"\x12"
    for i, nal in enumerate(SETS_264 + [b"\x65\x88\x84\x80", b"\x41\x9a\x24\x80"]):
        rtp = struct.pack(">BBHII", 0x80, 98 | (i > 1) << 7, i + (i > 2), max(i - 2, 0) * 3600, 7) + nal
        raw += struct.pack(">H", len(rtp)) + rtp
        sound = struct.pack(">BBHII", 0x80, 8, 100 + i, i * 320, 7) + b"\xd5" * 20
        raw += struct.pack(">H", len(sound)) + sound
    put("gb_media", "h264-and-sound", raw)


def sip():
    """Messages of devices, and dialogues with the platform: a byte that says the way, a message, NUL."""
    cam = "34020000001320000001"
    common = f"Via: SIP/2.0/UDP 10.9.9.9:5060;rport;branch=z9hG4bK%d\nFrom: <sip:{cam}@3402000000>;tag=%d\nTo: <sip:{cam}@3402000000>\nCall-ID: c%d\nCSeq: %d %s\n"

    def request(method, n, body="", more=""):
        kind = "Content-Type: Application/MANSCDP+xml\n" if body else ""
        head = f"{method} sip:34020000002000000001@3402000000 SIP/2.0\n" + common % (n, n, n, n, method) + more + kind
        return (head + f"Content-Length: {len(body)}\n\n").replace("\n", "\r\n").encode() + body.encode()

    def answer(status, method, body="", more=""):
        head = f"SIP/2.0 {status}\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch={{branch}}\nFrom: {{from}}\nTo: <sip:{cam}@d>;tag=dev\nCall-ID: {{call}}\nCSeq: 1 {method}\n{more}"
        return (head + f"Content-Length: {len(body)}\n\n").replace("\n", "\r\n").encode() + body.replace("\n", "\r\n").encode()

    login = (f'Authorization: Digest username="{cam}", realm="3402000000", nonce="0", uri="sip:a", response="0", algorithm=MD5, qop=auth, nc=00000001, cnonce="x"\n'
             f"Contact: <sip:{cam}@10.9.9.9:5060>;expires=60\nExpires: 3600\nX-GB-Ver: 2.0\n")
    keepalive = f"<Notify><CmdType>Keepalive</CmdType><SN>1</SN><DeviceID>{cam}</DeviceID><Status>OK</Status></Notify>"
    catalog = f"<Response><CmdType>Catalog</CmdType><SN>{{sn}}</SN><DeviceID>{cam}</DeviceID><SumNum>1</SumNum><DeviceList Num='1'><Item><DeviceID>{cam}</DeviceID></Item></DeviceList></Response>"
    alarm = f"<Notify><CmdType>Alarm</CmdType><SN>2</SN><DeviceID>{cam}</DeviceID><AlarmMethod>2</AlarmMethod></Notify>"
    changes = f"<Notify><CmdType>Catalog</CmdType><SN>3</SN><DeviceID>{cam}</DeviceID><DeviceList><Item><DeviceID>{cam}</DeviceID><Event>OFF</Event></Item></DeviceList></Notify>"
    end = f"<Notify><CmdType>MediaStatus</CmdType><SN>4</SN><DeviceID>{cam}</DeviceID><NotifyType>121</NotifyType></Notify>"
    sdp = "v=0\no=x 0 0 IN IP4 10.0.0.2\ns=Play\nc=IN IP4 10.0.0.2\nt=0 0\nm=video 5000 RTP/AVP 96\na=rtpmap:96 PS/90000\ny=0200000001\n"
    register, keep = request("REGISTER", 1, more=login), request("MESSAGE", 2, keepalive)
    put("sip_message", "register", register)
    put("sip_message", "keepalive", keep)
    put("sip_message", "answer", answer("200 OK", "INVITE", sdp, "Record-Route: <sip:p;lr>\nContact: <sip:a@h>\n"))
    put("sip_message", "compact", b"MESSAGE sip:a SIP/2.0\nv: SIP / 2.0 / UDP h ; branch=x , SIP/2.0/TCP [::1]:5\nf: \"a\\\"<\" <sip:a@[::1]>;tag=1\nt\t: sip:b\n ;tag=2\ni: 1\nl: 0\n\n<a/>")
    put("sip_stream", "several", b"\x07\r\n\r\n" + register + keep + b"\r\n" + answer("100 Trying", "INVITE"))
    put("gb_platform", "register", b"\x02" + register + b"\0\x03" + register + b"\0\x01" + register)
    put("gb_platform", "catalog", b"\x01" + request("MESSAGE", 1, catalog) + b"\0\x04" + keep + b"\0\x05" + request("NOTIFY", 3, changes))
    put("gb_platform", "events", b"\x01" + request("MESSAGE", 1, alarm) + b"\0\x01" + request("MESSAGE", 2, end) + b"\0\x01" + request("BYE", 3))
    put("gb_platform", "answers", b"\x05" + answer("200 OK", "INVITE", sdp) + b"\0\xfc" + answer("200 OK", "MESSAGE") + b"\0\xfd" + answer("200 OK", "SUBSCRIBE", more="Expires: 60\n")
        + b"\0\xfd" + answer("481 No", "SUBSCRIBE"))
    put("gb_platform", "connection", b"\x03" + keep + b"\0\x07" + keep[:100] + b"\0\x03" + keep[100:] + b"\0\x03GET / HTTP/1.1\r\n\r\n")


def http():
    for i, line in enumerate(["bytes=0-499", "bytes=500-", "bytes=-500", "bytes=0-0,5-6", "Bytes = 1-2", "\"abc\", W/\"x,y\"", "*", "\"0123456789abcdef\""]):
        put("http_range", f"{i}", line.encode())


text()
http()
rtmp()
gb28181()
program_streams()
sip()
if "text" not in sys.argv:
    media()
