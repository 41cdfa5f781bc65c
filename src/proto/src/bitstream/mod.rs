//! What is inside the codecs' bit streams: parameter sets, configuration records and headers. No RTP in here.
