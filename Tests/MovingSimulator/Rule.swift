// The rules of the design, each of which can be left out to see that the simulator finds it. The shell lies to the core
// where a rule is the core's, so that the code that ships has no switches.

/// A rule that is left out.
public enum Rule: String, CaseIterable, Sendable {
    /// A1: requests wait until the replicas follow. Without it, the core is told that there are no peers.
    case waitingForReplicas
    /// A6: planned steps wait for replicas that are cut off. Without it, those are left out of the peers.
    case waitingForMembers
    /// A1: an answer of a store that is no longer authoritative is none. Without it, it is passed on.
    case answersOfOthers
    /// A1: after a stop, a replica reads the register before it does anything. Without it, it goes on by what it knew.
    case readingAfterStop
    /// A2: what was touched since it was listed is listed again. Without it, nothing counts as touched.
    case listingAgain
    /// A2: the processes are asked again before the flip. Without it, they tell what was listed.
    case checkingProcesses
    /// A2, A3: requests wait inside a fence. Without it, they go on.
    case fences
    /// A3: requests go to the backup, too. Without it, they do not, and it counts as done.
    case secondWrites
    /// A3: a second write that fails is not passed over. Without it, it counts as done.
    case failedSecondWrites
    /// A3: a backup takes over. Without it, it never has the process that it had.
    case backups
    /// A3: a backup takes over only with the process that it had. Without it, any process will do.
    case processesOfBackups
    /// A3: a store that has started anew may hold wiped copies. Without it, the register is not told.
    case restarts
    /// A4: a PUT or DELETE leaves a mark. Without it, it does not.
    case marks
    /// A4: the mark is pipelined behind the push. Without it, it is sent after the client has its answer.
    case pipelinedMarks
    /// A4: a PUT is made as a POST first. Without it, one that is refused leaves its mark.
    case tryingPuts
    /// A4: marks are kept while a number of theirs is needed. Without it, all are deleted now and then.
    case neededMarks
    /// A4: stand-ins are cleaned first. Without it, cleaning finds nothing.
    case cleaning
    /// A5: what a predecessor has is merged. Without it, it is taken for empty.
    case merging
    /// A5: a store is used again only once its sockets are empty. Without it, as soon as a probe is answered.
    case returnDelay
    /// A mover lets its pushes end before it does anything else. Without it, they count as ended at once.
    case endingPushes
    /// A7: what a store without a known mark holds counts. Without it, it is void.
    case adopting
}
