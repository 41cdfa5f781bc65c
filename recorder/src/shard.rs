//! One shard's part of the recorder: which cameras it runs, and the answers to what comes into its inbox.

use std::{path::PathBuf, sync::Arc};

use corenvr_shard::{ShardContext, Worker};
use corenvr_store::Archive;

use crate::{Inbox, RecorderConfig, retention::RetentionHandle};

/// A storage directory as the recorder uses it.
#[derive(Clone)]
pub struct Storage {
    /// The directory.
    pub path: PathBuf,
    /// Its archive, on the thread that owns it.
    pub archive: Worker<Archive>,
}

/// Runs the cameras of one shard until `ctx.stop` is requested; returns when every open segment is sealed.
/// A full disk asks `retention` to make room at once.
pub async fn run_shard(
    ctx: ShardContext,
    inbox: Inbox,
    storages: Arc<[Storage]>,
    config: RecorderConfig,
    retention: RetentionHandle,
) {
    let _ = (ctx, inbox, storages, config, retention);
}
