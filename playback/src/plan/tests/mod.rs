//! The plan against a definition of what it is to play, over random recordings and command sequences.

mod every;
mod gops;
mod keys;
mod marks;
mod single;
mod world;
