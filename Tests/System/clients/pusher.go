// Pushes one group of four labels so many times, as any program that uses the official client does.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func main() {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	pushes := prometheus.NewGauge(prometheus.GaugeOpts{Name: "go_pushes", Help: "Pushes so far."})
	for i := 1; i <= count; i++ {
		pushes.Set(float64(i))
		err := push.New(os.Args[1], "go").Collector(pushes).
			Grouping("alpha", "1").Grouping("beta", "two/2").Grouping("gamma", "three").Grouping("delta", "four").
			Push()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
