//! Tests of `sampan-core` from outside, in one binary.

mod it {
    //! The tests, a file for each subject.
    mod coverage;
    mod fixtures;
    mod hostile;
    mod node;
    mod reference;
    mod schema;
    mod stored;
    mod values;
}
