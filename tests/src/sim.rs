//! The recorder's own simulated cameras, as a process beside it.

use std::{
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use crate::process::{Guarded, corenvr, free_port, wait_for};

/// The simulated cameras `cam1`, `cam2` and so on.
pub struct Sim {
    process: Guarded,
    port: u16,
}

impl Sim {
    /// Starts some.
    pub fn start(cameras: u32) -> Self {
        let port = free_port();
        let child = Command::new(corenvr())
            .args([
                "sim",
                "--cameras",
                &cameras.to_string(),
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Guarded(child);
        wait_for("the simulated cameras listen", Duration::from_secs(60), || {
            assert!(process.0.try_wait().unwrap().is_none(), "the simulated cameras ended");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { process, port }
    }

    /// The URL of a camera, from 1.
    pub fn url(&self, camera: u32) -> String {
        format!("rtsp://127.0.0.1:{}/cam{camera}", self.port)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}
