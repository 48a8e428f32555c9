// Package dispatch says who reads a store that is not in memory, and who
// remembers what was read: a cache of rows that the history keeps true, reads
// that many share, and a budget of reads that requests divide fairly.
//
// What is remembered are facts, never conclusions: whether a relationship is
// there, and which ones an object has. So caveat context, contextual
// relationships, the evaluation time and cycles are no concern of the cache, and
// an answer is the same with it and without.
package dispatch
