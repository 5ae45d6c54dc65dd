//! How the command line shows an operator's key.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::Failure;
use crate::cli::output::{Format, one};

#[derive(Serialize)]
pub(super) struct View {
    pub(super) operator: String,
    pub(super) file: PathBuf,
}

impl View {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        one(format, self, &[("operator", self.operator.clone()), ("file", self.file.display().to_string())])
    }
}
