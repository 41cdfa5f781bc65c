//! RTSP 1.0: messages, client and server.
