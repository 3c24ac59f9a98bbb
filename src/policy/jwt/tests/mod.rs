mod attacks;
mod keys;
mod rules;
mod signer;
mod step;
mod vectors;
