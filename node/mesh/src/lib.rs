//! The data plane of a Skep node: libp2p ends here.
