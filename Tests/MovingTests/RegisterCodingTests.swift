import MovingCore
import MovingSimulator
import Testing

@Suite struct RegisterCodingTests {
    @Test func whatIsEncodedIsDecoded() throws {
        // Every register that some histories write.
        for name in ["mix", "fail", "refused"] {
            let configuration = try #require(Configuration.all.first { $0.name == name })
            for seed in UInt64(1)...10 {
                for register in registers(of: configuration.scenario(seed: seed)) {
                    #expect(try Register(decoding: register.encoded()) == register)
                }
            }
        }
    }

    @Test func aLargeMoveStaysSmall() throws {
        // Three to four shards of 500 points: all slots that move, in some states at the same time.
        let moving = registerOfLargeMove(stores: 4)
        #expect(moving.entries.count > 400)
        #expect(moving.encoded().count < 30_000)
        #expect(try Register(decoding: moving.encoded()) == moving)
        // A thousand shards, one of which has failed.
        let failed = registerOfLargeMove(stores: 1000)
        #expect(failed.encoded().count < 200_000, "Consul's values are limited to 512 kB")
        #expect(try Register(decoding: failed.encoded()) == failed)
    }

    @Test func adoptedPredecessorsAreToldFromFailedOnes() throws {
        let text = """
            shardd-register 1
            epoch 60
            birth 41
            frontier 0
            store a 1 h:1
            store b 2 h:2
            ring 1 0=h:1 1=h:2
            down 1
            slots 0 0 own 0 after - ailing changed 0 rev 59 ranges 6
            slots 0 0 own 0 after - healing changed 0 rev 60 ranges 5
            slots 0 0 own 0 after 1@52,1@41~ settled changed 53 rev 53 ranges 0-4,9

            """
        let register = try Register(decoding: Array(text.utf8))
        #expect(register.birth == 41 && register.entries.count == 8)
        #expect(register.entries.filter { $0.value.step == .healing }.keys.map(\.range) == [5])
        #expect(register.entries.filter { $0.value.step == .ailing }.keys.map(\.range) == [6])
        let others = register.entries.values.filter { $0.step == .settled }
        #expect(others.allSatisfy { $0.predecessors.map(\.isAdopted) == [false, true] })
        #expect(String(decoding: register.encoded(), as: UTF8.self) == text)
    }

    @Test(arguments: [
        ("", 0), ("shardd-register 2\nepoch 1\n", 1), ("shardd-register 1\nepoch 1\nring 1\nlease 5\n", 4),
        ("shardd-register 1\nring 1\n", 2), ("shardd-register 1\nepoch x\n", 2),
        ("shardd-register 1\nepoch 1\nring 1\ndown 0\n", 4),
        (
            "shardd-register 1\nepoch 1\nstore a 1 h:1\nring 1 0=h:1\nslots 0 0 own 0 after - resting changed 1 rev 1 ranges 0\n",
            5
        ),
        (
            "shardd-register 1\nepoch 1\nstore a 1 h:1\nring 1 0=h:1\nslots 0 0 own 0 after - settled changed 1 rev 1\n",
            5
        ),
        (
            "shardd-register 1\nepoch 1\nstore a 1 h:1\nring 1 0=h:1\nslots 0 0 own 0 after - settled changed 1 rev 1 ranges 4-2\n",
            5
        ),
    ])
    func whatItDoesNotKnowIsRefused(text: String, line: Int) {
        do {
            let register = try Register(decoding: Array(text.utf8))
            Issue.record("taken: \(register)")
        } catch {
            #expect(error.line == line)
        }
    }
}
