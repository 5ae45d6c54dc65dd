//! Fields of messages that do not hold what they should.

use crate::ids::IdError;
use crate::task::InvalidSpec;
use crate::text::TextError;

/// A field of a message that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {why}")]
pub struct FieldError {
    /// Name of the field, as in the protobuf definition.
    pub field: &'static str,
    /// What is wrong with it, for people.
    pub why: String,
}

/// The error for a field, with what is wrong with it.
pub fn field(field: &'static str, why: impl ToString) -> FieldError {
    FieldError { field, why: why.to_string() }
}

/// Says in which field a value was wrong.
pub trait InField<T> {
    /// The value; or the error that names this field and says what is wrong with it.
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
