//! Clips that other programs wrote, for simulated cameras: any Matroska file that fits memory.
