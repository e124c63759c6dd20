//! XenStore, where this system has it: xenstored's socket in the domain that runs it, `/dev/xen/xenbus` elsewhere.

use std::{fs::File, path::PathBuf};

use crate::{DomId, Store as _, StoreClient, StoreError};

/// The variable that names xenstored's socket, as for Xen's own tools.
const SOCKET: &str = "XENSTORED_PATH";
/// Where xenstored listens.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
/// The kernel's own connection.
const NODE: &str = "/dev/xen/xenbus";

/// A new connection. Errors: neither is there.
pub(super) fn connect() -> Result<StoreClient, StoreError> {
    let named = std::env::var_os(SOCKET).map(PathBuf::from);
    let usual = SOCKETS.iter().map(PathBuf::from);
    for socket in named.into_iter().chain(usual) {
        if let Ok(client) = StoreClient::connect(&socket) {
            return Ok(client);
        }
    }
    let node = File::options().read(true).write(true).open(NODE);
    node.map(StoreClient::over).map_err(|error| {
        StoreError::Other(format!("no xenstored listens at {}, and {NODE}: {error}", SOCKETS[0]))
    })
}

/// Our domain's number: the node `domid` of its own directory, to which relative paths lead.
pub(super) fn own_domain() -> Result<DomId, StoreError> {
    let value = connect()?.read("domid")?;
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.trim().parse().ok());
    number.map(DomId).ok_or_else(|| StoreError::Other("the node domid holds no number".into()))
}
