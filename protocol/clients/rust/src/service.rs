//! The connection that carries calls to a node.

use tonic::transport::Channel;

/// A connection that is made when it is used. Clones share it.
pub(crate) type Service = Channel;
