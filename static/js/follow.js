// The reader's place. The transcript follows its end only for somebody who is there; for others a pill says that more has come.
const NEAR_PX = 48;

export function followEnd(box, pill) {
  const atEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
  const toEnd = () => {
    box.scrollTop = box.scrollHeight;
    pill.hidden = true;
  };
  box.addEventListener("scroll", () => { if (atEnd()) pill.hidden = true; }, { passive: true });
  pill.addEventListener("click", () => { toEnd(); box.focus({ preventScroll: true }); });

  // A growing composer or a turned phone must not hide the end from somebody who was there.
  let wasAtEnd = true;
  box.addEventListener("scrollend", () => { wasAtEnd = atEnd(); }, { passive: true });
  new ResizeObserver(() => { if (wasAtEnd) toEnd(); }).observe(box);

  return {
    toEnd,
    // Runs a change that may add something below.
    during(change) {
      const follows = atEnd();
      const height = box.scrollHeight;
      change();
      if (follows) toEnd();
      else if (box.scrollHeight > height) pill.hidden = false;
    },
    // Runs a change that adds something above, without moving what is being read.
    keeping(change) {
      const fromEnd = box.scrollHeight - box.scrollTop;
      change();
      box.scrollTop = box.scrollHeight - fromEnd;
    },
  };
}
