//! Fields of messages that cannot be understood.

use crate::ids::IdError;
use crate::task::InvalidSpec;
use crate::text::TextError;

/// A field of a message that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {why}")]
pub struct FieldError {
    /// Its name, as in the protobuf definition.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// A field, and what is wrong with it.
pub fn field(field: &'static str, why: impl ToString) -> FieldError {
    FieldError { field, why: why.to_string() }
}

/// Says in which field a value was found to be wrong.
pub trait InField<T> {
    /// The value, or what is wrong with the field of this name.
    ///
    /// # Errors
    /// [`FieldError`] if the value is wrong.
    fn in_field(self, name: &'static str) -> Result<T, FieldError>;
}

impl<T> InField<T> for Result<T, TextError> {
    fn in_field(self, name: &'static str) -> Result<T, FieldError> {
        self.map_err(|e| field(name, e))
    }
}

impl<T> InField<T> for Result<T, IdError> {
    fn in_field(self, name: &'static str) -> Result<T, FieldError> {
        self.map_err(|e| field(name, e))
    }
}

impl<T> InField<T> for Result<T, InvalidSpec> {
    fn in_field(self, name: &'static str) -> Result<T, FieldError> {
        self.map_err(|e| field(name, e))
    }
}
