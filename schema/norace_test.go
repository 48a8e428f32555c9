//go:build !race

package schema

// raceEnabled is true under the race detector.
const raceEnabled = false
