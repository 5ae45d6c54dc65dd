//! Why the mesh did not start.

use std::error::Error;
use std::fmt::Display;

use skep_config::{MeshConfig, cannot_listen};

/// Why the mesh did not start, as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MeshError(String);

impl MeshError {
    pub(crate) fn new(why: &(impl Display + ?Sized)) -> Self {
        Self(format!("the mesh cannot start: {why}"))
    }

    pub(crate) fn cannot_listen(config: &MeshConfig, over: &str, error: &(dyn Error + 'static)) -> Self {
        Self(cannot_listen("the mesh", &config.listen, over, &reason(error), "mesh.listen"))
    }
}

/// The text of an error, or of the first error beneath it that has a text.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |error: &&'_ (dyn Error + 'static)| Error::source(*error));
    errors.map(ToString::to_string).find(|text| !text.is_empty()).unwrap_or_else(|| "no reason was given".to_owned())
}
