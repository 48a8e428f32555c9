//go:build !race

package validation

// raceEnabled is true under the race detector.
const raceEnabled = false
