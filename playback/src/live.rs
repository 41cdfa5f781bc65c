//! The live edge on this shard: one subscription per camera, fanned out to every viewer here.

use std::sync::Arc;

use corenvr_store::live::Subscribe;

/// Carries a subscription to the shard that owns the camera. Must return at once.
pub type LiveRouter = Arc<dyn Fn(Subscribe) -> Result<(), RouteError> + Send + Sync>;

/// A subscription did not reach its camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No camera has that name.
    #[error("no camera has that name")]
    NoSuchCamera,
    /// The owner's inbox is full.
    #[error("the shard that owns the camera is overloaded")]
    Busy,
}
