//! `/metrics`: everything the recorder counts, in Prometheus' text format 0.0.4.
//!
//! Names carry their unit, in base units (seconds, bytes, ratios); counters end in `_total`. A gauge that is not known is left out, so
//! that an alert on its absence can tell.

mod cameras;
mod disks;
mod exposition;
mod process;
mod viewers;

use corenvr_shard::yield_if_needed;

use self::exposition::Exposition;
use super::{document, http::Failure};
use crate::supervisor::appliance::Appliance;

/// The value of `Content-Type` for what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as of now. Fails with 503 when a shard or an archive does not answer.
pub async fn render(appliance: &Appliance) -> Result<String, Failure> {
    let statuses = appliance.recorder.status().await;
    let statuses = statuses.map_err(|e| Failure::unavailable(&e))?;
    let disks = document::disks(appliance, &statuses).await;
    let disks = disks.map_err(|e| Failure::unavailable(&e))?;
    let rates = document::rates(appliance, &statuses);
    let mut out = Exposition::default();
    process::write(&mut out, appliance);
    yield_if_needed().await;
    cameras::write(&mut out, appliance, &statuses).await;
    disks::write(&mut out, appliance, &disks, &rates);
    viewers::write(&mut out, appliance);
    Ok(out.finish())
}
