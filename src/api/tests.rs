//! The API as it answers.
