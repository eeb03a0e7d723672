// Pushes one group so many times, as any program that uses the official client does: pusher URL COUNT [JOB [NAME=VALUE...]].
// Without a job it is a group of four labels.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func main() {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	job, labels := "go", []string{"alpha=1", "beta=two/2", "gamma=three", "delta=four"}
	if len(os.Args) > 3 {
		job, labels = os.Args[3], os.Args[4:]
	}
	pushes := prometheus.NewGauge(prometheus.GaugeOpts{Name: "go_pushes", Help: "Pushes so far."})
	for i := 1; i <= count; i++ {
		pushes.Set(float64(i))
		pusher := push.New(os.Args[1], job).Collector(pushes)
		for _, label := range labels {
			name, value, _ := strings.Cut(label, "=")
			pusher = pusher.Grouping(name, value)
		}
		if err := pusher.Push(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
