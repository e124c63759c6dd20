//! NBD servers: those of others, and one that lies.

mod fake;
mod server;

pub use fake::{Fake, Manners, Spoil};
pub use server::Server;
