//! segments and the live edge out, over RTSP.
