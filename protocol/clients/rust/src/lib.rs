//! Client of a Skep node's local API.
