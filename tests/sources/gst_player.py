#!/usr/bin/python3
"""A player that is not corenvr's own code: GStreamer's rtspsrc with a decoder, on footage that carries numbers.

Usage: gst_player.py URL PROTOCOL[,PROPERTY=VALUE ...] COMMAND ...

Commands, one after the other:
  play:SECONDS             plays so long, counted from the first picture (of a seek, where one came before)
  pause:SECONDS            pauses so long
  seek:FROM:RATE[:FLAGS]   FROM in seconds; in reverse play goes from there to the beginning. FLAGS: trick, key, skip, joined by +
  utc:FROM:RATE[:FLAGS]    the same with FROM in seconds since the Unix epoch, for onvif-mode
  eos                      plays to the end

Prints one JSON object a line: {"at": wall seconds, "event": ...}. got: a picture came (n from its SEI, pts); shown: a picture was due (gray
pixels follow in the file named by GST_PLAYER_PICTURES; pts); flushed: what comes now is behind a seek; command: one begins; open: length and
seekable; eos; error.
"""
import json
import os
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import GLib, Gst, GstApp  # noqa: E402, F401

UUID = b"corenvr-numbered"
# GStreamer counts UTC from 1900 in onvif-mode, as NTP does.
NTP_OF_UNIX = 2208988800
FLAGS = {
    "trick": Gst.SeekFlags.TRICKMODE,
    "key": Gst.SeekFlags.TRICKMODE_KEY_UNITS,
    "skip": Gst.SeekFlags.SKIP,
    "accurate": Gst.SeekFlags.ACCURATE,
}
Gst.init(None)
begun = time.monotonic()
printing = threading.Lock()
showing = threading.Event()
# A machine may be busy.
PATIENCE_SECONDS = 20
pictures = open(os.environ["GST_PLAYER_PICTURES"], "wb")


def say(event, **more):
    line = json.dumps({"at": time.monotonic() - begun, "event": event, **more})
    # Each stream has a thread.
    with printing:
        print(line, flush=True)


def seconds(t):
    return None if t == Gst.CLOCK_TIME_NONE else t / Gst.SECOND


def came(_pad, info):
    if info.type & Gst.PadProbeType.EVENT_FLUSH:
        if info.get_event().type == Gst.EventType.FLUSH_STOP:
            showing.clear()
            say("flushed")
        return Gst.PadProbeReturn.OK
    buffer = info.get_buffer()
    data = buffer.extract_dup(0, buffer.get_size())
    at = data.find(UUID)
    if at >= 0:
        at += len(UUID)
        say("got", n=int(data[at:at + 8]), pts=seconds(buffer.pts))
    return Gst.PadProbeReturn.OK


def shown(sink):
    sample = sink.emit("pull-sample")
    buffer = sample.get_buffer()
    pictures.write(buffer.extract_dup(0, buffer.get_size()))
    pictures.flush()
    showing.set()
    say("shown", pts=seconds(buffer.pts), stream=seconds(sample.get_segment().to_stream_time(Gst.Format.TIME, buffer.pts)))
    return Gst.FlowReturn.OK


def added(_source, pad, pipeline):
    caps = pad.get_current_caps().get_structure(0)
    if caps.get_string("media") != "video":
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("async", False)
        pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))
        return
    codec = caps.get_string("encoding-name").lower()
    chain = Gst.parse_bin_from_description(
        f"rtp{codec}depay ! {codec}parse name=parse ! avdec_{codec} max-threads=1 ! videoconvert ! "
        "video/x-raw,format=GRAY8 ! appsink name=sink emit-signals=true sync=true max-buffers=4", True)
    chain.get_by_name("parse").get_static_pad("src").add_probe(
        Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_FLUSH, came)
    chain.get_by_name("sink").connect("new-sample", shown)
    pipeline.add(chain)
    chain.sync_state_with_parent()
    pad.link(chain.get_static_pad("sink"))


class Player:
    def __init__(self, url, options, commands):
        self.commands = list(commands)
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.Pipeline.new()
        source = Gst.ElementFactory.make("rtspsrc")
        protocols, *properties = options.split(",")
        Gst.util_set_object_arg(source, "protocols", protocols)
        source.set_property("location", url)
        source.set_property("latency", 200)
        for p in properties:
            Gst.util_set_object_arg(source, *p.split("=", 1))
        source.connect("pad-added", added, self.pipeline)
        self.pipeline.add(source)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.message)
        self.ended = False

    def message(self, _bus, message):
        if message.type == Gst.MessageType.ERROR:
            error, debug = message.parse_error()
            say("error", text=f"{error.message} {debug}")
            self.loop.quit()
        elif message.type == Gst.MessageType.EOS:
            say("eos")
            self.ended = True
            if self.commands and self.commands[0] == "eos" or not self.commands:
                self.loop.quit()

    def next(self):
        if not self.commands:
            self.loop.quit()
            return False
        word, *args = self.commands[0].split(":")
        say("command", text=self.commands[0])
        if word == "eos":
            self.pipeline.set_state(Gst.State.PLAYING)
            if self.ended:
                self.loop.quit()
            return False
        self.commands.pop(0)
        if word in ("play", "pause"):
            self.pipeline.set_state(Gst.State.PLAYING if word == "play" else Gst.State.PAUSED)
            self.patience = time.monotonic() + PATIENCE_SECONDS
            GLib.timeout_add(10, self.wait, word, int(float(args[0]) * 1000))
        elif word in ("seek", "utc"):
            self.ended = False
            position = int((float(args[0]) + (NTP_OF_UNIX if word == "utc" else 0)) * Gst.SECOND)
            rate = float(args[1])
            flags = Gst.SeekFlags.FLUSH
            showing.clear()
            for flag in filter(None, (args[2] if len(args) > 2 else "").split("+")):
                flags |= FLAGS[flag]
            ends = (position, Gst.SeekType.NONE, 0) if rate > 0 else (0, Gst.SeekType.SET, position)
            done = self.pipeline.seek(rate, Gst.Format.TIME, flags, Gst.SeekType.SET, ends[0], ends[1], ends[2])
            say("sought", done=done)
            GLib.idle_add(self.next)
        else:
            sys.exit(f"unknown command {word}")
        return False

    def wait(self, word, milliseconds):
        if word == "play" and not showing.is_set() and not self.ended and time.monotonic() < self.patience:
            return True
        GLib.timeout_add(milliseconds, self.after, word)
        return False

    def after(self, word):
        if word == "play":
            query = Gst.Query.new_seeking(Gst.Format.TIME)
            seekable = self.pipeline.query(query) and query.parse_seeking()[1]
            known, length = self.pipeline.query_duration(Gst.Format.TIME)
            _, position = self.pipeline.query_position(Gst.Format.TIME)
            say("open", length=seconds(length) if known else None, seekable=bool(seekable), position=seconds(position))
        self.next()
        return False

    def run(self):
        self.next()
        self.loop.run()
        say("over")
        self.pipeline.set_state(Gst.State.NULL)


Player(sys.argv[1], sys.argv[2], sys.argv[3:]).run()
